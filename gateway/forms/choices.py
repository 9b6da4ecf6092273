"""APIs whose replies have `choices`: what chat completions and the older completions share.

A subclass says what a choice says; replies, streams and refusals around that are the same.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from gateway.call import Body, Call, Chunk, Moves, Path, Piece, Reply, Said, Tape, Words
from gateway.errors import UpstreamBroken
from gateway.forms.places import put

NO_USAGE: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Choices:
    """The part of a `Form` that its replies need."""

    endpoint: str
    path: str
    streams = True
    done = True
    refuses = True
    prefix: str  # of ids made here
    kind: str  # `object` of a whole reply
    chunk_kind: str

    # What a subclass says of one choice.

    def said(self, choice: Mapping[str, Any], path: Path) -> list[Said]:
        """The texts of a choice of a whole reply."""
        raise NotImplementedError

    def pieces(self, choice: Mapping[str, Any], index: int) -> list[Piece]:
        """What a choice of a chunk adds."""
        raise NotImplementedError

    def is_choice(self, choice: Mapping[str, Any], *, streamed: bool) -> bool:
        """Whether what is checked in a choice has the types that it must have."""
        raise NotImplementedError

    def refused_choice(self, index: int, words: Words) -> dict[str, Any]:
        """A choice of a whole reply that is nothing but a refusal."""
        raise NotImplementedError

    def refusal_deltas(self, words: Words, *, begun: bool, spoken: bool) -> list[dict[str, Any]]:
        """The choices, without index, of the chunks that say the words of a refusal."""
        raise NotImplementedError

    def blank(self) -> dict[str, Any]:
        """The choice, without index, of a chunk that says nothing."""
        raise NotImplementedError

    # The rest of the form.

    def wants_usage(self, body: Body) -> bool:
        options = body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def choices(self, body: Body) -> int:
        """How many choices were asked for (`n`)."""
        n = body.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    def well_formed(self, body: Body) -> bool:
        return isinstance(body.get("choices"), list) and self._well_formed(body, streamed=False)

    def usage(self, body: Body) -> Body | None:
        usage = body.get("usage")
        return usage if isinstance(usage, dict) else None

    def replies(self, body: Body) -> list[Reply]:
        return [
            Reply(self.said(choice, ("choices", position)), choice.get("finish_reason") == "content_filter")
            for position, choice in enumerate(body.get("choices") or ())
        ]

    def rewritten(self, body: Body, said: Said, text: str) -> Body:
        changed = put(body, said.path, text)
        return put(changed, (*said.path[:2], "logprobs"), None)  # they would still spell out what was there

    def refused(self, body: Body, words: Mapping[int, Words], why: Body) -> Body:
        choices = [
            self.refused_choice(choice.get("index", position), words[position]) if position in words else choice
            for position, choice in enumerate(body["choices"])
        ]
        return {**body, "choices": choices, "usage": body.get("usage") or dict(NO_USAGE), "guardrails": why}

    def refusal(self, call: Call, words: Words, why: Body) -> Body:
        return {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "object": self.kind,
            "created": int(time.time()),
            "model": call.model,
            "choices": [self.refused_choice(index, words) for index in range(call.choices)],
            "usage": dict(NO_USAGE),
            "guardrails": why,
        }

    def tape(self, call: Call) -> Tape:
        return ChoicesTape(self, call)

    def ends(self, body: Body) -> Sequence[int]:
        return [choice.get("index", 0) for choice in body.get("choices") or () if choice.get("finish_reason")]

    def last(self, body: Body) -> bool:
        return False

    def error(self, body: Body) -> Chunk:
        return Chunk(body)

    def read(self, chunk: Chunk) -> list[tuple[int, Mapping[str, Any]]]:
        """The choices of a chunk with their index. Raises `UpstreamBroken` when it is none."""
        body = chunk.body
        if "choices" not in body and ("error" in body or body.get("object") == "error"):
            raise UpstreamBroken("The model server reported an error in the middle of its reply.")
        if not self._well_formed(body, streamed=True):
            raise UpstreamBroken("The model server's stream has a part that is no chunk of a completion.")
        return [(choice.get("index", 0), choice) for choice in body.get("choices") or ()]

    def _well_formed(self, body: Body, *, streamed: bool) -> bool:
        choices = body.get("choices")
        if not isinstance(body.get("usage"), (dict, NoneType)) or not isinstance(choices, (list, NoneType)):
            return False
        return all(
            isinstance(choice, dict)
            and isinstance(choice.get("index", 0), int)
            and isinstance(choice.get("finish_reason"), (str, NoneType))
            and self.is_choice(choice, streamed=streamed)
            for choice in choices or ()
        )


@dataclass(slots=True)
class _Shown:
    """What the client has seen of a choice."""

    begun: bool = False
    spoken: bool = False
    finished: bool = False


class ChoicesTape:
    """A `Tape` of chunks with choices."""

    def __init__(self, form: Choices, call: Call) -> None:
        self._form = form
        self._wants_usage = call.wants_usage
        self._shown = {index: _Shown() for index in range(call.choices)}
        self._head = {
            "id": f"{form.prefix}-{uuid.uuid4().hex}",
            "object": form.chunk_kind,
            "created": int(time.time()),
            "model": call.model,
        }
        self._like_upstream = False
        self._usage_sent = False

    def read(self, chunk: Chunk) -> Moves:
        choices = self._form.read(chunk)
        if not self._like_upstream:
            self._like_upstream = True
            self._head.update({name: chunk.body[name] for name in ("id", "created", "model") if chunk.body.get(name)})
        pieces: list[Piece] = []
        ends: dict[int, str] = {}
        for index, choice in choices:
            self._shown.setdefault(index, _Shown())
            pieces += self._form.pieces(choice, index)
            if choice.get("finish_reason"):
                ends[index] = choice["finish_reason"]
        return Moves(pieces, ends)

    def sent(self, chunk: Chunk) -> None:
        for index, choice in self._form.read(chunk):
            shown = self._shown[index]
            shown.begun = True
            shown.spoken = shown.spoken or bool(self._form.pieces(choice, index))
            shown.finished = shown.finished or bool(choice.get("finish_reason"))
        self._usage_sent = self._usage_sent or bool(chunk.body.get("usage"))

    def without(self, chunk: Chunk, choices: set[int]) -> Chunk | None:
        came = chunk.body.get("choices") or []
        if not came and not self._wants_usage and self._form.usage(chunk.body) is not None:
            return None  # usage that only we have use for
        kept = [choice for choice in came if choice.get("index", 0) not in choices]
        if len(kept) == len(came):
            return chunk
        return Chunk({**chunk.body, "choices": kept}, event=chunk.event) if kept else None

    def open(self) -> list[int]:
        return sorted(index for index, shown in self._shown.items() if not shown.finished)

    def refuse(self, choice: int, words: Words, why: Body) -> list[Chunk]:
        shown = self._shown[choice]
        said = self._form.refusal_deltas(words, begun=shown.begun, spoken=shown.spoken)
        shown.begun = shown.finished = True
        end = {**self._form.blank(), "finish_reason": "content_filter"}
        return [*(self._chunk(choice, one) for one in said), self._chunk(choice, end, guardrails=why)]

    def close(self, usage: Body | None) -> list[Chunk]:
        if not self._wants_usage or self._usage_sent:
            return []
        return [Chunk({**self._head, "choices": [], "usage": dict(usage or NO_USAGE)})]

    def _chunk(self, index: int, choice: Mapping[str, Any], **extra: Any) -> Chunk:
        whole = {"index": index, "logprobs": None, "finish_reason": None, **choice}
        return Chunk({**self._head, "choices": [whole], **extra})
