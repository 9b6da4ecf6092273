"""The words of a refusal, and the `guardrails` object that explains it. Its shape on the wire is the form's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.call import Call, Chunk, Completion, Words
from gateway.guard.policy import Policy
from gateway.guard.verdict import Verdict
from gateway.record.observation import Observation


def guardrails(verdict: Verdict, policy: Policy, seen: Observation) -> dict[str, Any]:
    """The `guardrails` object that explains a block."""
    return {
        "decision": "block",
        "stage": verdict.stage,
        "rail": verdict.rail,
        "category": verdict.category,
        "reason": verdict.reason,
        "policy": {"name": policy.name, "version": policy.version},
        "request_id": seen.request_id,
        "latency_ms": seen.latency_ms(),
    }


def words(verdict: Verdict, policy: Policy) -> Words:
    """The words of a refusal, for the fields that the policy's `refusal_style` names."""
    style = policy.rules.refusal_style
    return Words(verdict.text if style != "refusal" else None, verdict.text if style != "content" else None)


def refuse(call: Call, verdict: Verdict, policy: Policy, seen: Observation) -> Completion:
    """The refusal of a request for which the model was never called."""
    return Completion(call.form.refusal(call, words(verdict, policy), guardrails(verdict, policy, seen)))


def refuse_stream(call: Call, verdict: Verdict, policy: Policy, seen: Observation) -> Iterator[Chunk]:
    """The same of a streamed request."""
    tape = call.form.tape(call)
    for choice in tape.open():
        yield from tape.refuse(choice, words(verdict, policy), guardrails(verdict, policy, seen))
    yield from tape.close(None)
