"""What a key may use: requests and tokens per minute, and requests at once. Refused requests cost nothing.

A request counts when it comes, whatever becomes of it. Its tokens are estimated then, and put right by what the model
server says it used, when it ends.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import structlog

from gateway.call import Call
from gateway.config import Limits
from gateway.errors import LimitsFailed, RateLimited
from gateway.keys.caller import Caller
from gateway.quota import estimate, storage
from gateway.quota.window import Share, Window
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation

T = TypeVar("T")

LIMITS = ("requests", "tokens", "concurrent")
# After a failure the storage is left alone for so long, so that a dead one does not delay every request.
_REST_SECONDS = 1.0
# Further names share one label, so that a file of thousands of keys is no burden to Prometheus.
_MOST_LABELS = 200


class Limiter:
    """Limits in the memory of this process, or in Redis for all who share it."""

    def __init__(self, settings: Limits, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stored, self._slots = storage.build(settings)
        self._window = Window(self._stored)
        self._rested = 0.0
        self._names: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Keep the leases of slots alive from now on."""
        self._renewing = asyncio.create_task(self._renew())

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await storage.close(self._stored)

    def declare(self, callers: tuple[Caller, ...]) -> None:
        """Let the series of keys with limits exist at zero."""
        for caller in callers:
            if caller.limited:
                for limit in LIMITS:
                    self._metrics.count("limited_requests_total", 0, key_name=self._label(caller.name), limit=limit)

    async def admit(self, caller: Caller, seen: Observation, until: AsyncExitStack) -> None:
        """Count a request, and take a slot which it holds `until` it ends. Raises `RateLimited` and `LimitsFailed`."""
        if caller.concurrent is not None:
            slot = await self._asked(partial(self._slot, caller.name, caller.concurrent))
            if slot == "":
                self._refuse(caller, "concurrent", f"{caller.concurrent} requests at once are taken", 1.0)
            if slot is not None:
                until.push_async_callback(self._asked, partial(self._slots.release, caller.name, slot), late=True)
        if caller.requests_per_minute is not None:
            take = partial(self._window.take, f"requests/{caller.name}", caller.requests_per_minute, 1)
            share = await self._asked(take)
            self._check(caller, "requests", share, seen)

    async def reserve(self, caller: Caller, call: Call, seen: Observation, until: AsyncExitStack) -> None:
        """Take the tokens that a request may need, put right when it ends. Raises `RateLimited` and `LimitsFailed`."""
        if caller.tokens_per_minute is None:
            return
        name = f"tokens/{caller.name}"
        take = partial(self._window.take, name, caller.tokens_per_minute, estimate.before(call))
        share = await self._asked(take)
        self._check(caller, "tokens", share, seen)
        if share is not None:

            async def put_right() -> None:
                await self._window.correct(name, share, estimate.after(call, seen))

            until.push_async_callback(self._asked, put_right, late=True)

    def _check(self, caller: Caller, limit: str, share: Share | None, seen: Observation) -> None:
        if share is None:
            return
        seen.limits |= {
            f"x-ratelimit-limit-{limit}": str(share.limit),
            f"x-ratelimit-remaining-{limit}": str(share.remaining),
            f"x-ratelimit-reset-{limit}": duration(share.reset_seconds),
        }
        if not share.granted:
            used = share.limit - share.remaining
            said = f"{limit} per minute: Limit {share.limit}, Used {used}, Requested {share.cost}"
            self._refuse(caller, limit, said, share.wait_seconds)

    def _refuse(self, caller: Caller, limit: str, said: str, wait_seconds: float) -> None:
        self._metrics.count("limited_requests_total", key_name=self._label(caller.name), limit=limit)
        if math.isinf(wait_seconds):
            raise RateLimited(f"Request too large for this key on {said}.", limit, None)
        message = f"Rate limit reached for this key on {said}. Please try again in {duration(wait_seconds)}."
        raise RateLimited(message, limit, wait_seconds)

    async def _slot(self, name: str, limit: int) -> str:
        return await self._slots.take(name, limit) or ""

    async def _asked(self, ask: Callable[[], Awaitable[T]], *, late: bool = False) -> T | None:
        """What the storage says; None where it fails, and the configuration lets requests pass all the same.

        `late`: the reply has left, and there is nothing to refuse any more. Raises `LimitsFailed`.
        """
        if time.monotonic() >= self._rested:
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    return await ask()
            except Exception as error:  # noqa: BLE001  the seam of the storage
                structlog.get_logger().error("limits failed", error=type(error).__name__)
                self._rested = time.monotonic() + _REST_SECONDS
        self._metrics.count("limit_failures_total")
        if self._settings.on_failure == "refuse" and not late:
            raise LimitsFailed
        return None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.slot_seconds / 3)
            await self._asked(self._slots.renew, late=True)

    def _label(self, name: str) -> str:
        if name in self._names or len(self._names) < _MOST_LABELS:
            self._names.add(name)
            return name
        return "other"


def duration(seconds: float) -> str:
    """As OpenAI writes it: 120ms, 1.5s, 1m3s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:.3g}s"
