"""A circuit breaker: after some failures in a row no request is sent for a while, then one may try."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prometheus_client import Gauge

from gateway.errors import UpstreamUnavailable

CLOSED, HALF_OPEN, OPEN = 0, 1, 2


class Breaker:
    """`admit` before each call, then exactly one of `succeeded`, `failed`, `abandoned`."""

    def __init__(
        self, failures: int, reset_seconds: float, gauge: Gauge, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._reset_seconds = reset_seconds
        self._gauge = gauge
        self._clock = clock
        self._failures = 0
        self._opened = 0.0
        self._state = CLOSED

    @property
    def open(self) -> bool:
        return self._state == OPEN and self._left > 0

    @property
    def _left(self) -> float:
        """Seconds until one call may try again."""
        return self._opened + self._reset_seconds - self._clock()

    def admit(self) -> None:
        """Raises `UpstreamUnavailable` while open, and while another call tries whether it can close."""
        if self._state == HALF_OPEN or self.open:
            raise UpstreamUnavailable(
                "The model server cannot be reached; no request is sent to it for a moment.",
                retry_after_seconds=max(1, math.ceil(self._left)),
            )
        if self._state == OPEN:
            self._to(HALF_OPEN)

    def succeeded(self) -> None:
        self._failures = 0
        self._to(CLOSED)

    def failed(self) -> None:
        self._failures += 1
        if self._state == HALF_OPEN or self._failures >= self._most:
            self._opened = self._clock()
            self._to(OPEN)

    def abandoned(self) -> None:
        """The caller left before the outcome was known."""
        if self._state == HALF_OPEN:
            self._to(OPEN)

    def _to(self, state: int) -> None:
        self._state = state
        self._gauge.set(state)
