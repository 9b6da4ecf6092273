"""Puts edited policies in force while requests go on.

A policy is built off the event loop, warmed, and must hold its own examples; then one reference is swapped. Requests
under way end with the policy that they began with. On any error the old policy stays, and the reason is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gateway.config import Reload as Settings
from gateway.errors import ConfigError
from gateway.guard.rails import Guard
from gateway.record.metrics import Metrics, Reloaded
from gateway.reload.expect import failures
from gateway.reload.folders import fingerprint, listen, refuse_halves


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy in force comes from and goes to. `put` puts a guard in force, and returns the one before it."""

    name: str
    folder: Path
    current: Callable[[], Guard]
    build: Callable[[], Guard]
    put: Callable[[Guard], Guard]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last try at a policy. `at`: seconds since 1970; `reason`: why it is not in force, "" where it is."""

    at: float
    result: Reloaded
    version: str
    reason: str = ""


class SelfTestFailed(ConfigError):
    """A policy does not hold its own examples."""


class Reloader:
    """Watches the folders of what is in force, which `places` says. `swapped` is called with each new guard."""

    def __init__(
        self,
        places: Callable[[], Sequence[Place]],
        settings: Settings,
        metrics: Metrics,
        swapped: Callable[[Guard], None],
    ) -> None:
        self._places = places
        self._settings = settings
        self._metrics = metrics
        self._swapped = swapped
        self._tried: dict[str, str] = {}
        self._attempts: dict[str, Attempt] = {}
        self._changed = asyncio.Event()
        self._asked = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired: set[Guard] = set()
        metrics.gauge("config_current").set(1)

    def start(self) -> None:
        """Begin to watch, where the settings say so; what is in force is put to its own test first."""
        self._spawn(self._run())
        if self._settings.watch == "notify":
            self._spawn(listen({place.folder.parent for place in self._places()}, self._changed))

    async def close(self) -> None:
        """Stop. What was replaced is closed, whoever still uses it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(guard.close() for guard in self._retired))

    def ask(self) -> None:
        """Load everything again, changed or not."""
        self._asked = True
        self._changed.set()

    def states(self) -> dict[str, Any]:
        """Per policy: the version in force, and what came of the last attempt to load it anew."""
        found: dict[str, Any] = {}
        for place in self._places():
            found[place.name] = {"version": place.current().policy.version}
            if place.name in self._attempts:
                last = self._attempts[place.name]
                tried = {"at": round(last.at, 3), "result": last.result, "version": last.version}
                found[place.name]["last_reload"] = {**tried, "reason": last.reason} if last.reason else tried
        return found

    async def _run(self) -> None:
        watched = self._settings.watch != "off"
        if watched:
            await self._test_what_is_in_force()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_seconds if watched else None):
                    await self._changed.wait()
            self._changed.clear()
            asked, self._asked = self._asked, False
            try:
                await self._look(asked)
            except Exception as error:  # noqa: BLE001  the edge of a task: the next look may fare better
                structlog.get_logger().error("policies not looked at", exc_info=error)

    async def _look(self, asked: bool) -> None:
        """Try every policy whose folder has changed, as soon as it is at rest."""
        places = self._places()  # further policies may come with further keys
        for place in places:
            self._tried.setdefault(place.name, place.current().policy.version)
        found = await _fingerprints(places)
        if not asked and found == self._tried:
            return
        await asyncio.sleep(self._settings.quiet_seconds)
        before, found = found, await _fingerprints(places)
        for place in places:
            if found[place.name] != before[place.name]:
                self._changed.set()  # still being written: look again
            elif asked or found[place.name] != self._tried[place.name]:
                await self._try(place, found[place.name])

    async def _try(self, place: Place, version: str) -> None:
        began = time.perf_counter()
        guard: Guard | None = None
        self._tried[place.name] = version
        try:
            guard = await asyncio.to_thread(_build, place)
            if guard.policy.version != version or await asyncio.to_thread(fingerprint, place.folder) != version:
                self._tried[place.name] = ""  # edited under our hands
                self._changed.set()
                await guard.close()
                return
            await guard.warm()
            await _hold(guard)
        except Exception as error:  # noqa: BLE001  the seam of a policy: whatever is wrong with it, the old one stays
            if guard is not None:
                await guard.close()
            self._failed(place, version, error)
            return
        before = place.put(guard)
        self._retire(before)
        self._note(place, Attempt(time.time(), "ok", version))
        structlog.get_logger().info(
            "policy reloaded",
            policy=place.name,
            before=before.policy.version,
            version=version,
            seconds=round(time.perf_counter() - began, 3),
        )
        self._swapped(guard)

    def _failed(self, place: Place, version: str, error: Exception) -> None:
        result: Reloaded = "error"
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, SelfTestFailed):
            result, reason = "self_test", str(error)
        elif isinstance(error, ConfigError):
            result, reason = "invalid", str(error)
        elif isinstance(error, OSError) and error.filename:
            result, reason = "invalid", f"{error.filename}: {error.strerror}"
        self._note(place, Attempt(time.time(), result, version, reason))
        structlog.get_logger().error(
            "policy not reloaded", policy=place.name, kept=place.current().policy.version, result=result, reason=reason
        )

    def _note(self, place: Place, attempt: Attempt) -> None:
        self._attempts[place.name] = attempt
        self._metrics.count("config_reloads_total", result=attempt.result)
        self._metrics.gauge("config_current").set(all(one.result == "ok" for one in self._attempts.values()))

    async def _test_what_is_in_force(self) -> None:
        """At the start nothing older could be kept, so a failure is told, and no more."""
        for place in self._places():
            try:
                await _hold(place.current())
            except Exception as error:  # noqa: BLE001  the seam of a policy
                self._failed(place, place.current().policy.version, error)

    def _retire(self, guard: Guard) -> None:
        """Close it once the last request that began with it has ended."""

        async def retire() -> None:
            await guard.unused()
            await guard.close()
            self._retired.discard(guard)

        self._retired.add(guard)
        self._spawn(retire())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _fingerprints(places: Sequence[Place]) -> dict[str, str]:
    return await asyncio.to_thread(lambda: {place.name: fingerprint(place.folder) for place in places})


def _build(place: Place) -> Guard:
    """The policy as its files are now. Raises `ConfigError` also for what looks half written."""
    refuse_halves(place.folder)
    guard = place.build()
    before, rules = place.current().policy.rules, guard.policy.rules
    if before.expect and not rules.expect and "expect" not in rules.model_fields_set:
        raise ConfigError(
            f"{place.folder}/policy.yml: expect - is gone, and the policy in force has {len(before.expect)} examples; "
            "half written? Write `expect: []` to have none"
        )
    return guard


async def _hold(guard: Guard) -> None:
    """Raises `SelfTestFailed` with the first example that does not hold."""
    found = await failures(guard)
    if found:
        raise SelfTestFailed(found[0] if len(found) == 1 else f"{found[0]} (and {len(found) - 1} more)")
