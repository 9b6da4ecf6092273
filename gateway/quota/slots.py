"""Requests at once: each holds a slot until it ends. In Redis a slot is a lease, so that those of a process that was
killed come back by themselves.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from typing import Any, Protocol

_PREFIX = "hhh-slots"

# Redis' own clock, so that those of replicas do not matter. Slots are members, scored with when they lapse.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
_RENEW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for index = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[index]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""


class Slots(Protocol):
    async def take(self, name: str, limit: int) -> str | None:
        """A slot, or None where all are taken."""

    async def release(self, name: str, slot: str) -> None:
        """Give a slot back."""

    async def renew(self) -> None:
        """Say that the slots taken here are still held."""


class OwnSlots:
    """Of this process alone."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    async def take(self, name: str, limit: int) -> str | None:
        if self._held[name] >= limit:
            return None
        self._held[name] += 1
        return name

    async def release(self, name: str, slot: str) -> None:
        self._held[name] -= 1

    async def renew(self) -> None:
        pass


class SharedSlots:
    """In Redis, each for `seconds` unless it is renewed."""

    def __init__(self, redis: Any, seconds: float) -> None:
        self._redis = redis
        self._take = redis.register_script(_TAKE)
        self._renew = redis.register_script(_RENEW)
        self._milliseconds = int(seconds * 1000)
        self._held: dict[str, set[str]] = {}

    async def take(self, name: str, limit: int) -> str | None:
        slot = secrets.token_hex(8)
        taken = await self._take([f"{_PREFIX}/{name}"], [limit, self._milliseconds, slot])
        if not taken:
            return None
        self._held.setdefault(name, set()).add(slot)
        return slot

    async def release(self, name: str, slot: str) -> None:
        self._held.get(name, set()).discard(slot)
        await self._redis.zrem(f"{_PREFIX}/{name}", slot)

    async def renew(self) -> None:
        held = [(name, sorted(slots)) for name, slots in self._held.items() if slots]
        await asyncio.gather(
            *(self._renew([f"{_PREFIX}/{name}"], [self._milliseconds, *slots]) for name, slots in held)
        )
