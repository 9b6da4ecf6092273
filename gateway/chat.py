"""What flows down the data path: a chat request, the plan for it, and the reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Route = Literal["allow", "advise", "review", "refuse"]
Message = dict[str, Any]


def dump(value: Any) -> bytes:
    """JSON as we write it: UTF-8, compact, non-ASCII kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Chat:
    """One request to /v1/chat/completions.

    `body` is the client's JSON, parsed and never edited in place; `raw` its bytes, which go upstream as they came
    unless `raw` was dropped by a rewrite (`with_messages`, `with_model`).
    """

    body: Mapping[str, Any]
    raw: bytes | None
    request_id: str
    route: Route = "allow"
    on_block: Literal["completion", "error"] = "completion"

    @property
    def messages(self) -> list[Message]:
        return list(self.body["messages"])

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def choices(self) -> int:
        """How many choices were asked for (`n`)."""
        n = self.body.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    def with_messages(self, messages: list[Message]) -> Chat:
        return replace(self, body={**self.body, "messages": messages}, raw=None)

    def with_model(self, model: str) -> Chat:
        return self if model == self.model else replace(self, body={**self.body, "model": model}, raw=None)

    def with_route(self, route: Route) -> Chat:
        return replace(self, route=route)

    def with_guidance(self, text: str) -> Chat:
        """The policy's guidance joined to the system message, which is made where there is none."""
        messages = self.messages
        first = messages[0] if messages else {}
        if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
            messages[0] = {**first, "content": f"{first['content']}\n\n{text}"}
        else:
            messages.insert(0, {"role": "system", "content": text})
        return self.with_messages(messages)

    def payload(self) -> bytes:
        """The bytes to send upstream."""
        return self.raw if self.raw is not None else dump(self.body)


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply of the model: `body` parsed, `raw` its bytes as they came (None when made in process)."""

    body: Mapping[str, Any]
    raw: bytes | None = None

    def payload(self) -> bytes:
        return self.raw if self.raw is not None else dump(self.body)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One `chat.completion.chunk` of a streamed reply, parsed, with its bytes as they came (None when made here)."""

    body: Mapping[str, Any]
    raw: bytes | None = None

    def payload(self) -> bytes:
        return self.raw if self.raw is not None else dump(self.body)
