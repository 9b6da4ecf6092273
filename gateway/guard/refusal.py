"""A block on the wire: a normal completion whose `finish_reason` is `content_filter`, because clients show those."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.chat import Chat, Chunk, Completion
from gateway.guard.policy import Policy
from gateway.guard.verdict import Verdict
from gateway.record.observation import Observation

NO_USAGE: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


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


def words(verdict: Verdict, policy: Policy) -> dict[str, Any]:
    """`content` and `refusal` of a refusing message, by the policy's `refusal_style`."""
    style = policy.rules.refusal_style
    return {
        "content": verdict.text if style != "refusal" else None,
        "refusal": verdict.text if style != "content" else None,
    }


def refuse(chat: Chat, verdict: Verdict, policy: Policy, seen: Observation) -> Completion:
    """The refusal of a request for which the model was never called."""
    choice = {
        "finish_reason": "content_filter",
        "logprobs": None,
        "message": {"role": "assistant", **words(verdict, policy)},
    }
    return Completion(
        {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": chat.model,
            "choices": [{"index": index, **choice} for index in range(chat.choices)],
            "usage": dict(NO_USAGE),
            "guardrails": guardrails(verdict, policy, seen),
        }
    )


def refuse_choice(choice: Mapping[str, Any], verdict: Verdict, policy: Policy) -> dict[str, Any]:
    """A choice of the model's reply with its message replaced; nothing of what it said remains."""
    message = {"role": "assistant", **words(verdict, policy)}
    return {"index": choice.get("index", 0), "finish_reason": "content_filter", "logprobs": None, "message": message}


class Frames:
    """Makes chunks of one stream: the same id, model and time throughout."""

    def __init__(self, chat: Chat, like: Mapping[str, Any] | None = None) -> None:
        like = like or {}
        self._head = {
            "id": like.get("id") or f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": like.get("created") or int(time.time()),
            "model": like.get("model") or chat.model,
        }

    def delta(self, index: int, delta: Mapping[str, Any], finish_reason: str | None = None, **extra: Any) -> Chunk:
        choice = {"index": index, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
        return Chunk({**self._head, "choices": [choice], **extra})

    def usage(self, usage: Mapping[str, Any]) -> Chunk:
        return Chunk({**self._head, "choices": [], "usage": dict(usage)})

    def refusal(self, index: int, verdict: Verdict, policy: Policy) -> Chunk:
        shown = {name: text for name, text in words(verdict, policy).items() if text is not None}
        return self.delta(index, shown)

    def end(self, index: int, verdict: Verdict, policy: Policy, seen: Observation) -> Chunk:
        return self.delta(index, {}, "content_filter", guardrails=guardrails(verdict, policy, seen))


def refuse_stream(chat: Chat, verdict: Verdict, policy: Policy, seen: Observation) -> Iterator[Chunk]:
    """The refusal of a streamed request for which the model was never called."""
    frames = Frames(chat)
    for index in range(chat.choices):
        yield frames.delta(index, {"role": "assistant", "content": ""})
        yield frames.refusal(index, verdict, policy)
        yield frames.end(index, verdict, policy, seen)
    if chat.wants_usage:
        yield frames.usage(NO_USAGE)
