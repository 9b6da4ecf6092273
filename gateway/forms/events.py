"""The events of a streamed response: which texts they add to, what the client has seen, and how a refusal ends it.

Texts come three times: in deltas, in the `done` event of a part, and in the items and the response at the end. What
repeats a text that deltas have told is held until that text has been checked; what differs from all of them is checked
as a text of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from gateway.call import Body, Chunk, Moves, Piece, Words
from gateway.errors import UpstreamBroken
from gateway.forms.items import NO_TEXT, said_by
from gateway.forms.places import strings

LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
# Their deltas are sound and pictures, of which nothing can be read.
_NO_DELTA = frozenset({"response.audio", "response.output_audio", "response.image_generation_call"})
# Events that repeat the request, and no text of the model's.
_OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})


def refusal_part(words: Words) -> dict[str, Any]:
    if words.refusal is None:
        return {"type": "output_text", "text": words.text, "annotations": [], "logprobs": []}
    return {"type": "refusal", "refusal": words.refusal}


@dataclass(slots=True)
class _Item:
    """An item of the output as the client has seen it."""

    index: int
    body: dict[str, Any]
    parts: dict[tuple[str, int], str] = field(default_factory=dict)
    done: bool = False


class ResponseTape:
    """A `Tape`. `ended` makes the response of the last event."""

    def __init__(self, blank: Body, ended: Callable[[Body, list[Body], Body | None, Body], dict[str, Any]]) -> None:
        self._response: Body = blank
        self._ended = ended
        self._texts: dict[str, str] = {}
        self._tools: set[str] = set()
        self._items: dict[int, _Item] = {}
        self._sequence = -1
        self._opened = False
        self._finished = False
        self._why: Body | None = None

    # What chunks say.

    def read(self, chunk: Chunk) -> Moves:
        body = _event(chunk.body)
        kind = body["type"]
        if kind in _OPENING:
            return Moves()
        base, _, what = kind.rpartition(".")
        place = f"{base} {body.get('output_index')} {body.get('content_index', body.get('summary_index', ''))}"
        if what == "delta" and isinstance(body.get("delta"), str):
            if base in _NO_DELTA:
                return Moves()
            self._texts[place] = self._texts.get(place, "") + body["delta"]
            tool = _is_tool(base)
            if tool:
                self._tools.add(place)
            return Moves([Piece(0, place, body["delta"], tool)])
        pieces = self._repeated(body, place, what)
        return Moves(pieces, {0: _reason(body)} if kind in LAST else {})

    def _repeated(self, body: Body, place: str, what: str) -> list[Piece]:
        """What an event holds whole. A call that has only begun is a piece too: its name alone tells to act."""
        item = body.get("item")
        tool = isinstance(item, dict) and item.get("type") not in ("message", "reasoning", None)
        pieces: list[Piece] = []
        if what == "added" and tool:
            pieces.append(Piece(0, f"call {body.get('output_index')}", "", tool=True))
        elif what == "done" and tool:
            pieces.append(Piece(0, f"call {body.get('output_index')}", "", tool=True, final=True))
        for text, called in _shown(body, place):
            known = next((name for name, told in self._texts.items() if told == text), None)
            if known is None:
                known = f"{place} {what} {len(self._texts)}"
                self._texts[known] = text
                pieces.append(Piece(0, known, text, called, final=True))
                if called:
                    self._tools.add(known)
            else:
                pieces.append(Piece(0, known, "", known in self._tools, final=True))
        return pieces

    # What the client has seen.

    def sent(self, chunk: Chunk) -> None:
        body = chunk.body
        self._sequence = max(self._sequence, body["sequence_number"] if _is_count(body.get("sequence_number")) else 0)
        if isinstance(body.get("response"), dict):
            self._response, self._opened = body["response"], True
        if body["type"] in LAST:
            self._finished = True
        index = body.get("output_index")
        if not isinstance(index, int):
            return
        if isinstance(body.get("item"), dict):
            item = self._items.setdefault(index, _Item(index, body["item"]))
            item.body, item.done = body["item"], body["type"] == "response.output_item.done"
        elif index in self._items and isinstance(body.get("delta"), str):
            parts = self._items[index].parts
            place = (body["type"], int(body.get("content_index") or body.get("summary_index") or 0))
            parts[place] = parts.get(place, "") + body["delta"]

    def without(self, chunk: Chunk, choices: set[int]) -> Chunk | None:
        return None if 0 in choices else chunk

    def open(self) -> list[int]:
        return [] if self._finished or self._why is not None else [0]

    # How it ends.

    def refuse(self, choice: int, words: Words, why: Body) -> list[Chunk]:
        self._why = why
        chunks: list[Chunk] = []
        if not self._opened:
            begun = {**self._response, "status": "in_progress", "output": []}
            chunks += [self._event(f"response.{kind}", response=begun) for kind in ("created", "in_progress")]
        for item in self._items.values():
            if not item.done:
                item.body, item.done = _cut(item), True
                chunks.append(self._event("response.output_item.done", output_index=item.index, item=item.body))
        return chunks + self._message(words)

    def close(self, usage: Body | None) -> list[Chunk]:
        if self._finished or self._why is None:
            return []
        self._finished = True
        output: list[Body] = [item.body for _, item in sorted(self._items.items())]
        return [self._event("response.incomplete", response=self._ended(self._response, output, usage, self._why))]

    def _message(self, words: Words) -> list[Chunk]:
        """A message of its own that says the refusal."""
        index = max(self._items, default=-1) + 1
        part = refusal_part(words)
        name = "refusal" if part["type"] == "refusal" else "text"
        kind = "response.refusal" if name == "refusal" else "response.output_text"
        whole = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "status": "completed"}
        begun = {**whole, "status": "in_progress", "content": []}
        at = {"output_index": index, "item_id": whole["id"], "content_index": 0}
        extra: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
        done = {**whole, "content": [part]}
        self._items[index] = _Item(index, done, done=True)
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.content_part.added", **at, part={**part, name: ""}),
            self._event(f"{kind}.delta", **at, delta=part[name], **extra),
            self._event(f"{kind}.done", **at, **{name: part[name]}, **extra),
            self._event("response.content_part.done", **at, part=part),
            self._event("response.output_item.done", output_index=index, item=done),
        ]

    def _event(self, kind: str, **members: Any) -> Chunk:
        self._sequence += 1
        return Chunk({"type": kind, "sequence_number": self._sequence, **members}, event=kind.encode())


def _event(body: Body) -> Body:
    """An event. Raises `UpstreamBroken` when it tells of an error, or is none."""
    kind = body.get("type")
    if kind == "error" or (not isinstance(kind, str) and "error" in body):
        raise UpstreamBroken("The model server reported an error in the middle of its reply.")
    response = body.get("response")
    odd = not isinstance(response, (dict, NoneType)) or not isinstance(body.get("item"), (dict, NoneType))
    if isinstance(response, dict):
        output = response.get("output")
        odd = odd or not isinstance(output, (list, NoneType)) or not isinstance(response.get("usage"), (dict, NoneType))
        odd = odd or not all(isinstance(item, dict) for item in output or ())
    if not isinstance(kind, str) or odd:
        raise UpstreamBroken("The model server's stream has a part that is no event of a response.")
    return body


def _shown(body: Body, place: str) -> Iterator[tuple[str, bool]]:
    """What of an event is the model's, and whether it is a tool's call: of a response its output, else all texts."""
    response, item = body.get("response"), body.get("item")
    if isinstance(response, dict):
        for one in response.get("output") or ():
            yield from ((said.text, said.tool) for said in said_by(one, ()))
        yield from ((text, False) for _, text in strings(response.get("output_text")))
    elif isinstance(item, dict):
        yield from ((said.text, said.tool) for said in said_by(item, ()))
    else:
        tool = _is_tool(place)
        yield from ((text, tool) for _, text in strings(body, NO_TEXT))


def _is_tool(base: str) -> bool:
    return any(word in base for word in ("arguments", "_input", "_code", "call"))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _reason(body: Body) -> str:
    response: Mapping[str, Any] = body.get("response") or {}
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return str(reason or response.get("status") or "stop")


def _cut(item: _Item) -> dict[str, Any]:
    """An item as far as the client has seen it."""
    said = [(name, text) for (name, _), text in sorted(item.parts.items(), key=lambda part: part[0][1])]
    if item.body.get("type") == "reasoning":
        summary = [{"type": "summary_text", "text": text} for name, text in said if "summary" in name]
        content = [{"type": "reasoning_text", "text": text} for name, text in said if "summary" not in name]
        return {**item.body, "summary": summary, **({"content": content} if content else {}), "status": "incomplete"}
    if item.body.get("type") != "message":
        return {**item.body, "status": "incomplete"}
    parts: list[dict[str, Any]] = [
        {"type": "refusal", "refusal": text}
        if "refusal" in name
        else {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        for name, text in said
    ]
    return {**item.body, "content": parts, "status": "incomplete"}
