"""A candidate on its trial: it serves a share of the default policy's requests, or looks on.

Who looks on is asked when the reply is out: requests wait in a short queue (a full one drops them, and counts), one at
a time, and with rests between them. Only what comes of the request is compared, since the model's reply is one that the
live policy asked for: whether it is refused before the model is called (triage, input rails), advised, or let through.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import structlog

from gateway.call import Call, dump
from gateway.config import Shadow as Settings
from gateway.errors import GatewayError
from gateway.guard.rails import Guard
from gateway.pipeline import Pipeline
from gateway.probes.runner import StandIn
from gateway.record.audit.entry import new_id
from gateway.record.metrics import Metrics, Unrecorded
from gateway.record.observation import Observation

# After a request that took a while, four times that long belongs to the others.
_RESTS = 4.0
_WRITE_SECONDS = 0.5
_MOST_ROWS = 500
# What waits is kept in memory.
_MOST_BYTES = 256 * 1024
_COMPARED = ("allow", "advise", "modify", "block", "would_block")


class Comparisons(Protocol):
    async def write_comparisons(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep what came of comparisons."""


class Trial:
    """`beside`: the policy that the candidate is tried beside. `guard`: the candidate's, as it is now."""

    def __init__(
        self,
        guard: Guard,
        weights: str,
        beside: str,
        settings: Settings,
        metrics: Metrics,
        store: Comparisons | None = None,
    ) -> None:
        self.guard = guard
        self.weights = weights
        self.beside = beside
        self._settings = settings
        self._metrics = metrics
        self._store = store
        self._own = Unrecorded()  # what the path counts of a look
        self._queue: asyncio.Queue[tuple[Call, Observation]] = asyncio.Queue(settings.queue)
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def swap(self, guard: Guard) -> Guard:
        """Put the candidate's new version in the old one's place; returns the old one."""
        before, self.guard = self.guard, guard
        return before

    def start(self) -> None:
        if self._settings.mode == "observe":
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._write()
        await self.guard.close()

    def serves(self, call: Call, key: str) -> bool:
        """Whether the candidate is the one to serve this request: always the same answer for an end user of a key, and
        where none is named, for a conversation."""
        return self._settings.mode == "serve" and _fraction(f"{key}\0{_whose(call)}") < self._settings.share

    def watch(self, call: Call, seen: Observation) -> None:
        """Have the candidate look at this request once it is answered, if its share comes to that."""
        if self._settings.mode == "observe" and random.random() < self._settings.share:
            seen.ended.append(partial(self._offer, call))

    def _offer(self, call: Call, seen: Observation) -> None:
        if seen.decision not in _COMPARED or not seen.route:
            return
        if len(call.payload()) > _MOST_BYTES:
            self._metrics.count("shadow_dropped_total", reason="too_large")
        elif self._queue.full():
            self._metrics.count("shadow_dropped_total", reason="queue_full")
        else:
            self._queue.put_nowait((call, seen))

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    found = await self._queue.get()
                await self._look(*found)
            if self._rows and (time.monotonic() - self._written > _WRITE_SECONDS or len(self._rows) >= _MOST_ROWS):
                await self._write()

    async def _look(self, call: Call, live: Observation) -> None:
        began = time.perf_counter()
        try:
            await self._compare(call, live)
        except Exception as error:  # noqa: BLE001  the edge of a task: the next request may fare better
            structlog.get_logger().error("candidate failed", request_id=live.request_id, exc_info=error)
        await asyncio.sleep(_RESTS * (time.perf_counter() - began))

    async def _compare(self, call: Call, live: Observation) -> None:
        guard = self.guard
        policy = guard.policy
        seen = Observation(self._own, live.endpoint, policy.name, policy.version, live.request_id)
        guard.hold()
        try:
            await Pipeline(guard, StandIn()).check(call, None, seen)
            candidate = of_request(seen)
        except GatewayError:
            candidate = "failed"
        finally:
            guard.release()
        self._metrics.count("shadow_decisions_total", live=of_request(live), candidate=candidate)
        self._rows.append(
            {
                "id": new_id(),
                "at": time.time(),
                "decision_id": live.record,
                "policy": policy.name,
                "policy_version": policy.version,
                "weights": self.weights,
                "live": of_request(live),
                "candidate": candidate,
                "label": seen.label,
                "category": seen.category or seen.judged,
                "score": seen.score,
                "route": seen.route,
                "rail": seen.rail,
            }
        )

    async def _write(self) -> None:
        rows, self._rows, self._written = self._rows, [], time.monotonic()
        if self._store is None or not rows:
            return
        try:
            await self._store.write_comparisons(rows)
        except Exception as error:  # noqa: BLE001  the seam of the database
            structlog.get_logger().error("comparisons not kept", error=type(error).__name__, rows=len(rows))


def of_request(seen: Observation) -> str:
    """What came of a request before the model was called: allow, advise or refuse."""
    if seen.decision in ("block", "would_block") and seen.stage in ("triage", "input"):
        return "refuse"
    return "advise" if seen.route == "advise" else "allow"


def _whose(call: Call) -> str:
    """The end user that the client names, else how the conversation began."""
    body = call.body
    for name in ("safety_identifier", "user"):
        if isinstance(body.get(name), str) and body[name]:
            return f"{name}\0{body[name]}"
    turns = body.get("messages") or body.get("input") or body.get("prompt")
    if isinstance(turns, list):
        first = (turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user")
        turns = next(first, turns[:1])
    return dump(turns).decode()


def _fraction(text: str) -> float:
    """A number from 0 to 1 that is always the same for a text, and for many of them evenly spread."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
