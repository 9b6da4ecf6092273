"""Counts by the minute, for limits that hold over a sliding one: what was counted in the minute before weighs less and
less, as though it had been spread evenly.

The minutes are the clock's, so that replicas that share a storage share them too (clocks a second apart shift a limit
by a second).
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from limits.aio.storage import Storage

_MINUTE = 60.0
_KEPT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Share:
    """What a request got of a limit. `wait_seconds`: 0 where it got it, else until it could. `minute`: its own."""

    limit: int
    cost: int
    remaining: int
    reset_seconds: float
    wait_seconds: float
    minute: int

    @property
    def granted(self) -> bool:
        return self.wait_seconds == 0


class Window:
    """Counters of a storage, by name and minute."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def take(self, name: str, limit: int, cost: int) -> Share:
        """Count `cost` where it fits under the limit, and nothing where it does not.

        It is counted first and taken back if need be, so that two at once never both get the last of it.
        """
        now = time.time()
        minute, passed = int(now // _MINUTE), now % _MINUTE
        before, after = await asyncio.gather(
            self._storage.get(_key(name, minute - 1)), self._storage.incr(_key(name, minute), _KEPT_SECONDS, cost)
        )
        count = after - cost
        weighted = max(0, before) * (1 - passed / _MINUTE)
        reset = 2 * _MINUTE - passed if after else _MINUTE - passed if before else 0.0
        if weighted + after <= limit:
            return Share(limit, cost, math.floor(limit - weighted - after), reset, 0.0, minute)
        await self._storage.incr(_key(name, minute), _KEPT_SECONDS, -cost)
        wait = _wait(limit - cost, before, count, passed)
        return Share(limit, cost, max(0, math.floor(limit - weighted - count)), reset, wait, minute)

    async def correct(self, name: str, share: Share, cost: int) -> None:
        """What was taken has turned out to be `cost`: the rest goes back to its minute, what is missing counts now."""
        minute = int(time.time() // _MINUTE)
        if cost < share.cost and minute - share.minute <= 1:
            await self._storage.incr(_key(name, share.minute), _KEPT_SECONDS, cost - share.cost)
        elif cost > share.cost:
            await self._storage.incr(_key(name, minute), _KEPT_SECONDS, cost - share.cost)


def _key(name: str, minute: int) -> str:
    return f"{name}/{minute}"


def _wait(room: int, before: int, count: int, passed: float) -> float:
    """Seconds until what is counted is no more than `room`, if nothing else comes; infinite where it can never be."""
    if room < 0:
        return math.inf
    if count <= room:  # as soon as the minute before weighs little enough
        return max(0.001, _MINUTE * (1 - (room - count) / before) - passed) if before else 0.001
    return _MINUTE - passed + _MINUTE * (1 - room / count)
