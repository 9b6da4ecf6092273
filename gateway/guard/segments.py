"""The checkable text of a request: the turns that are new, each with its place, so that a rewrite can be put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.chat import Message, dump

Kind = Literal["user", "tool"]

_KINDS: Mapping[str, Kind] = {"user": "user", "assistant": "user", "tool": "tool", "function": "tool"}

# Of a reply's message: fields whose strings are not shown as text, and those of nested objects whose strings are.
_NO_TEXT = frozenset({"role", "name", "id", "tool_calls", "function_call", "tool_call_id"})
_NESTED_TEXT = frozenset({"text", "refusal", "thinking", "reasoning", "summary", "transcript", "content"})


@dataclass(frozen=True, slots=True)
class Segment:
    """One text. `part` is its index in a content array, None where the content is a string."""

    kind: Kind
    message: int
    part: int | None
    text: str


def new_segments(messages: list[Message]) -> list[Segment]:
    """The texts after the model's last reply: user turns, and tool results, which are untrusted.

    Assistant messages at the very end are the beginning of a reply that the client put into the model's mouth: they
    are new too, and do not hide the turn before them.
    """
    found: list[Segment] = []
    for index in range(_begin(messages), len(messages)):
        kind = _KINDS.get(str(messages[index].get("role")))
        if kind is not None:
            found += _of(messages[index], index, kind)
    return found


def turns_before(messages: list[Message], turns: int = 2, characters: int = 240) -> str:
    """The last user turns before the new ones, each cut to its end: what a short new turn may refer to."""
    earlier = [message for message in messages[: _begin(messages)] if message.get("role") == "user"][-turns:]
    texts = [" ".join(segment.text for segment in _of(message, 0, "user")) for message in earlier]
    return "\n".join(text[-characters:] for text in texts if text)


def _begin(messages: list[Message]) -> int:
    """Where the new turns begin."""
    end = len(messages)
    while end and messages[end - 1].get("role") == "assistant":
        end -= 1
    while end and messages[end - 1].get("role") != "assistant":
        end -= 1
    return end


def _of(message: Message, index: int, kind: Kind) -> list[Segment]:
    content = message.get("content")
    if isinstance(content, str):
        return [Segment(kind, index, None, content)] if content.strip() else []
    if not isinstance(content, list):
        return []
    return [
        Segment(kind, index, position, part["text"])
        for position, part in enumerate(content)
        if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"].strip()
    ]


def rewritten(messages: list[Message], segment: Segment, text: str) -> list[Message]:
    """The messages with one segment's text replaced; all else as it was."""
    message = messages[segment.message]
    content: Any = text
    if segment.part is not None:
        content = list(message["content"])
        content[segment.part] = {**content[segment.part], "text": text}
    changed = list(messages)
    changed[segment.message] = {**message, "content": content}
    return changed


def reply_texts(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of a reply's message (or delta) is shown: field and text, fields that we do not know included.

    What is nested (the parts of a content array, reasoning details, a transcript of speech) is joined. Not covered:
    pictures, sound, and what an odd server writes beside the message.
    """
    texts: list[tuple[str, str]] = []
    for name, value in message.items():
        if not value or name in _NO_TEXT:
            continue
        text = value if isinstance(value, str) else "".join(_nested(value))
        if text:
            texts.append((name, text))
    return texts


def with_text(message: Mapping[str, Any], name: str, text: str) -> Message:
    """The message with the text of one field replaced; a content array becomes one part, other nesting is dropped."""
    value: Any = text
    if not isinstance(message[name], str):
        value = [{"type": "text", "text": text}] if name == "content" else None
    return {**message, name: value}


def _nested(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _nested(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _NESTED_TEXT:
                yield from _nested(item)


def tool_arguments(message: Mapping[str, Any]) -> list[tuple[int | None, str]]:
    """The arguments of the tool calls in a reply's message as text, each with its position (None: `function_call`)."""
    calls = message.get("tool_calls")
    texts: list[tuple[int | None, str]] = [
        (position, _arguments(call)) for position, call in enumerate(calls if isinstance(calls, list) else [])
    ]
    if message.get("function_call"):
        texts.append((None, _arguments({"function": message["function_call"]})))
    return [(position, text) for position, text in texts if text]


def with_arguments(message: Mapping[str, Any], position: int | None, text: str) -> Message:
    """The message with the arguments of one tool call replaced."""
    if position is None:
        return {**message, "function_call": {**message["function_call"], "arguments": text}}
    calls = list(message["tool_calls"])
    kind, name = ("custom", "input") if "custom" in calls[position] else ("function", "arguments")
    calls[position] = {**calls[position], kind: {**calls[position][kind], name: text}}
    return {**message, "tool_calls": calls}


def tool_pieces(delta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pieces of tool-call arguments in a delta: a name for the call, and the piece.

    A call without arguments is a piece too, an empty one: its name alone would tell the client to act.
    """
    calls = delta.get("tool_calls")
    legacy = delta.get("function_call")
    if not calls and not legacy:
        return []
    pieces = [("function_call", _arguments({"function": legacy}))] if legacy else []
    for call in calls if isinstance(calls, list) else ():
        number = call.get("index", 0) if isinstance(call, dict) else 0
        pieces.append((f"tool_calls.{number}", _arguments(call)))
    return pieces


def _arguments(call: Any) -> str:
    """What a tool call is called with. Some servers send objects where OpenAI sends their JSON."""
    call = call if isinstance(call, dict) else {}
    function = call.get("function") or call.get("custom")
    function = function if isinstance(function, dict) else {}
    value = function.get("arguments") or function.get("input") or ""
    return value if isinstance(value, str) else dump(value).decode()
