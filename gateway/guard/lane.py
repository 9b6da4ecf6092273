"""A lane: one NeMo engine, and the flows of a policy that it runs. What the engine did becomes a `Check` or an error.

The engine's own words for "a rail broke" are told apart from a refusal here, so that a broken rail never looks like
one. What is not covered: dialog, retrieval and generation rails. Generation is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

Direction = Literal["input", "output"]
Event = Mapping[str, Any]

# What the compiled engine says instead of words of its own: when a rail broke, and when one blocked.
_BROKEN = "I'm sorry, an internal error has occurred."
_WORDLESS = "I'm sorry, I can't respond to that."

# Where a failure names no rail: the compiled engine runs several and does not say which one timed out.
UNNAMED = "nemo"

_NO_CONTEXT: Mapping[str, object] = {
    "triage_label": "benign",
    "triage_category": "benign",
    "triage_score": 0.0,
    "triage_route": "review",
    "triage_toxicity": 0.0,
}


class RailError(Exception):
    """A rail raised, timed out, or could not say. `rail` names it."""

    def __init__(self, rail: str, error: str) -> None:
        super().__init__(f"{rail}: {error}")
        self.rail = rail
        self.error = error


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one lane: `content` is the flow's own words on a block (or None), the new text on a modify."""

    decision: Literal["pass", "modify", "block"]
    rail: str = ""
    content: str | None = None


def rail_name(flow: str) -> str:
    """A flow without its parameters: `self check input $model=small` is the rail `self check input`."""
    return flow.split("(")[0].split("$")[0].strip()


class Lane:
    """One NeMo engine and the flows that it runs in each direction. `engine` is None where there are none.

    `reach` is the length of the longest phrase in a reply that its rails look for, in characters, as far as known.
    """

    colang = False

    def __init__(self, engine: Any, flows: Mapping[Direction, tuple[str, ...]], reach: int = 0) -> None:
        self._engine = engine
        self.flows = flows
        self.reach = reach if flows["output"] else 0

    async def check(
        self, direction: Direction, user: str, reply: str | None, context: Mapping[str, object], timeout_seconds: float
    ) -> Check:
        """Run this lane's rails on one user text (and the reply to it). Raises `RailError`."""
        if not self.flows[direction]:
            return Check("pass")
        messages = [{"role": "user", "content": user}]
        if reply is not None:
            messages.append({"role": "assistant", "content": reply})
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._run(direction, messages, context)
        except RailError:
            raise
        except TimeoutError:
            raise RailError(self._running(direction), "timeout") from None
        except Exception as error:
            raise RailError(self._running(direction), type(error).__name__) from error

    async def warm(self) -> None:
        """Run each direction once: the first Colang check parses and caches for most of a second."""
        for direction in self.flows:
            try:
                await self.check(direction, "Hello", "Hello" if direction == "output" else None, _NO_CONTEXT, 60)
            except RailError as error:  # it may work by the time of a request: a model behind it can be late
                structlog.get_logger().warning("rail failed its first run", rail=error.rail, error=error.error)

    async def close(self) -> None:
        """Let go of the engine's workers and connections."""

    async def _run(self, direction: Direction, messages: list[dict[str, str]], context: Mapping[str, object]) -> Check:
        raise NotImplementedError

    def _running(self, direction: Direction) -> str:
        """The rail that was at work when a check failed, as far as that is known."""
        flows = self.flows[direction]
        return rail_name(flows[0]) if len(flows) == 1 else UNNAMED


class CompiledLane(Lane):
    """The library's rails on IORails: about 0.05 ms a check, no flows of one's own, blind to triage."""

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.stop()

    async def _run(self, direction: Direction, messages: list[dict[str, str]], context: Mapping[str, object]) -> Check:
        from nemoguardrails.rails.llm.options import RailType

        # Not `check_async`, which hands the check to a worker, where a timeout of ours would leave it running.
        await self._engine.start()
        result = await self._engine._run_check(messages, [RailType(direction)])
        rail = rail_name(result.rail or "")
        if result.status.value == "blocked":
            if result.content == _BROKEN:
                raise RailError(rail or self._running(direction), "action_failed")
            return Check("block", rail)
        if result.status.value == "modified":
            return Check("modify", self._rewriting(direction), result.content)
        return Check("pass")

    def _rewriting(self, direction: Direction) -> str:
        """The engine does not say which rail rewrote: the first that can."""
        found = self._engine.rails_manager.transform_flows
        flows = next((flows for key, flows in found.items() if key.value.lower() == direction and flows), None)
        return rail_name((flows or self.flows[direction])[0])


class ColangLane(Lane):
    """Colang flows on LLMRails: 6 to 9 ms a check; they see what triage thinks as context variables."""

    colang = True

    async def _run(self, direction: Direction, messages: list[dict[str, str]], context: Mapping[str, object]) -> Check:
        response = await self._engine.generate_async(
            messages=[{"role": "context", "content": dict(context)}, *messages],
            options={"rails": [direction], "log": {"internal_events": True}},
            state={},  # without it NeMo keeps every conversation in memory
        )
        return outcome(response.log.internal_events, direction, messages[-1]["content"])

    def _running(self, direction: Direction) -> str:
        from nemoguardrails.logging.processing_log import processing_log_var

        log = processing_log_var.get() or []
        started = _started([entry["data"] for entry in log if entry["type"] == "event"], direction)
        return rail_name(started) if started else super()._running(direction)


def outcome(events: Sequence[Event], direction: Direction, text: str) -> Check:
    """What the flows made of `text`, from the events of their run. Raises `RailError` when an action failed.

    Events are read, and not the reply that NeMo makes of them, because in a reply a failure, a refusal and a user who
    types the same words look alike.
    """
    title = direction.capitalize()
    started, variable = "", "user_message" if direction == "input" else "bot_message"
    rewriting = ""
    said: list[str] = []
    finished = False
    for event in events:
        match event["type"]:
            case "InternalSystemActionFinished" if not event["is_success"]:
                raise RailError(rail_name(started) or UNNAMED, "action_failed")
            case "StartUtteranceBotAction":
                said.append(str(event["script"] or ""))
            case "ContextUpdate" if started and variable in event["data"]:
                rewriting = started
            case kind if kind == f"Start{title}Rail":
                started = event["flow_id"]
            case kind if kind == f"{title}RailsFinished":
                finished = True
    if not finished:
        words = "\n".join(said)
        return Check("block", rail_name(started) or UNNAMED, words if words not in ("", _WORDLESS) else None)
    if said[-1] != text:
        return Check("modify", rail_name(rewriting) or UNNAMED, said[-1])
    return Check("pass")


def _started(events: Sequence[Event], direction: Direction) -> str:
    """The flow that was started last."""
    kind = f"Start{direction.capitalize()}Rail"
    return next((str(event["flow_id"]) for event in reversed(events) if event["type"] == kind), "")
