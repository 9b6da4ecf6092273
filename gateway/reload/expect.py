"""A policy's own examples (`expect` in policy.yml), run through the real path: triage, input rails, output rails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call, Completion
from gateway.errors import GatewayError
from gateway.forms.chat import CHAT
from gateway.guard.policy import Example
from gateway.guard.rails import Guard
from gateway.pipeline import Pipeline
from gateway.probes.runner import StandIn
from gateway.record.metrics import Unrecorded
from gateway.record.observation import Observation

_TREATED: Mapping[str, str] = {"block": "refuse", "would_block": "refuse"}
# Where an example has a tool's result or a reply alone.
_ASKED = "Please look at this."
_MOST_SHOWN = 80


async def failures(guard: Guard) -> list[str]:
    """What does not hold, one line each, the file and the example named; empty when all do.

    In shadow mode what would be refused counts as refused. Traffic's metrics and records see nothing of it.
    """
    policy, metrics, found = guard.policy, Unrecorded(), []
    for number, example in enumerate(policy.rules.expect):
        seen = Observation(metrics, "expect", policy.name, policy.version, f"expect.{number}")
        try:
            await Pipeline(guard, StandIn()).check(_call(example), _reply(example), seen)
            got = None if _holds(example, seen) else _got(example, seen)
        except GatewayError as error:
            got = f"an error: {error}"
        if got is not None:
            said = example.reply or example.tool or example.message or ""
            shown = said if len(said) <= _MOST_SHOWN else f"{said[:_MOST_SHOWN]}..."
            path = policy.folder / "policy.yml"
            found.append(f"{path}: expect.{number} - expected {_expected(example)}, got {got}: {shown!r}")
    return found


def _call(example: Example) -> Call:
    messages: list[dict[str, Any]] = [{"role": "user", "content": example.message or _ASKED}]
    if example.tool is not None:
        called = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": example.tool})
    return Call(CHAT, {"model": "expect", "messages": messages}, None, "expect")


def _reply(example: Example) -> Completion | None:
    if example.reply is None:
        return None
    message = {"role": "assistant", "content": example.reply}
    return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


def _holds(example: Example, seen: Observation) -> bool:
    category = seen.category or seen.judged
    return (
        example.decision in (None, _treated(seen))
        and example.route in (None, seen.route)
        and example.rail in (None, seen.rail)
        and (example.category is None or f"{category}.".startswith(f"{example.category}."))
    )


def _treated(seen: Observation) -> str:
    return _TREATED.get(seen.decision, seen.decision)


def _expected(example: Example) -> str:
    """`refuse (harmful.fraud)`, and what else was said of it."""
    more = [example.category, example.route and f"route {example.route}", example.rail and f"by {example.rail}"]
    said = ", ".join(one for one in more if one)
    return f"{example.decision} ({said})" if example.decision and said else example.decision or said


def _got(example: Example, seen: Observation) -> str:
    """`allow (benign 0.93)`, and what else the example asks for."""
    more = [f"{seen.category or seen.judged} {seen.score:.2f}"]
    more += [f"route {seen.route}"] if example.route else []
    more += [f"by {seen.rail or 'no rail'}"] if example.rail or seen.rail not in ("", "triage") else []
    return f"{_treated(seen)} ({', '.join(more)})"
