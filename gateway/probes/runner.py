"""The probes on their way through the real path: triage, input rails, and the output rails on a reply of one sentence.

The model is not asked: a stand-in replies, so that a run costs a second of one core and no token. Hence what the model
itself would refuse is not measured here (refusals_total{source="model"} and `hhh eval` are for that). Probes are no
traffic: they move none of its metrics and leave no record among its decisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from gateway.call import Call, Chunk, Completion
from gateway.errors import GatewayError
from gateway.forms.chat import CHAT
from gateway.guard.rails import Guard
from gateway.pipeline import Pipeline
from gateway.probes.result import OBSERVED, Observed, Result
from gateway.probes.suites import Probe
from gateway.record.audit.entry import new_id
from gateway.record.metrics import Metrics, Unrecorded
from gateway.record.observation import Observation

_SEEN: Mapping[str, Observed] = {
    "allow": "answered",
    "modify": "answered",
    "advise": "advised",
    "block": "refused",
    "would_block": "would_refuse",
}
_REPLY = "Thank you for your message. Here is what is generally known about it."


class Results(Protocol):
    async def write_probes(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the results of one run."""


class StandIn:
    """An upstream that says one sentence."""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def ready(self) -> bool:
        return True

    async def models(self) -> Mapping[str, Any]:
        return {"object": "list", "data": []}

    async def complete(self, call: Call) -> Completion:
        message = {"role": "assistant", "content": _REPLY}
        return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})

    async def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        yield Chunk({"choices": [{"index": 0, "delta": {"content": _REPLY}, "finish_reason": "stop"}]})


class Prober:
    """Runs the probes through whatever guard is in force; one run at a time."""

    def __init__(
        self,
        probes: tuple[Probe, ...],
        guard: Callable[[], Guard],
        metrics: Metrics,
        weights: str = "",
        results: Results | None = None,
    ) -> None:
        self._probes = probes
        self._guard = guard
        self._metrics = metrics
        self._weights = weights
        self._results = results
        self._own = Unrecorded()  # what the path counts of a probe
        self._running = asyncio.Lock()
        self._changed = asyncio.Event()
        for suite, expected in sorted({(probe.suite, probe.expected) for probe in probes}):
            for observed in OBSERVED:
                metrics.count("probe_results_total", 0, suite=suite, expected=expected, observed=observed)

    async def run(self, pause_seconds: float = 0.0) -> list[Result]:
        """One run over all probes, counted and kept."""
        async with self._running:
            guard, run = self._guard(), new_id()
            pipeline, results = Pipeline(guard, StandIn()), []
            guard.hold()
            try:
                for probe in self._probes:
                    results.append(await self._one(pipeline, probe, run))
                    await asyncio.sleep(pause_seconds)
            finally:
                guard.release()
            for one in results:
                self._metrics.count(
                    "probe_results_total", suite=one.suite, expected=one.expected, observed=one.observed
                )
            self._metrics.gauge("probe_last_run_timestamp_seconds").set(time.time())
            await self._keep(results)
        return results

    async def repeat(self, every_seconds: float, pause_seconds: float) -> None:
        """Run for ever."""
        while True:
            try:
                results = await self.run(pause_seconds)
            except Exception as error:  # noqa: BLE001  the edge of a task: the next run may fare better
                structlog.get_logger().error("probes failed", exc_info=error)
                await self._rest(every_seconds)
                continue
            structlog.get_logger().info(
                "probes",
                run=results[0].run,
                probes=len(results),
                wrongly_refused=sum(result.wrongly_refused for result in results),
                missed=sum(result.missed for result in results),
                failed=sum(result.observed == "failed" for result in results),
            )
            await self._rest(every_seconds)

    def again(self) -> None:
        """What they are run through has changed: do not wait for the next time."""
        self._changed.set()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def _one(self, pipeline: Pipeline, probe: Probe, run: str) -> Result:
        policy = pipeline.guard.policy
        seen = Observation(self._own, "probe", policy.name, policy.version, f"probe_{probe.id}")
        messages = [{"role": "user", "content": probe.text}]
        observed: Observed = "failed"
        try:
            await pipeline.answer(Call(CHAT, {"model": "probe", "messages": messages}, None, seen.request_id), seen)
            observed = _SEEN[seen.decision]
        except GatewayError as error:
            structlog.get_logger().warning("probe failed", probe=probe.id, error=type(error).__name__)
        return Result(
            run=run,
            at=time.time(),
            suite=probe.suite,
            probe=probe.id,
            text=probe.text,
            expected=probe.expected_of(policy),
            observed=observed,
            label=seen.label,
            category=seen.category or seen.judged,
            score=round(seen.score, 5),
            route=seen.route,
            stage=seen.stage,
            rail=seen.rail,
            policy=policy.name,
            policy_version=policy.version,
            weights=self._weights,
        )

    async def _keep(self, results: Sequence[Result]) -> None:
        if self._results is None:
            return
        try:
            await self._results.write_probes([_row(result) for result in results])
        except Exception as error:  # noqa: BLE001  the seam of the database
            structlog.get_logger().error("probe results not kept", error=type(error).__name__)


def _row(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in Result.__dataclass_fields__}
