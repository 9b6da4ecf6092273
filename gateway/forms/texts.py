"""Texts of messages, as chat completions and the APIs around it have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.call import Kind, Path, Segment, dump

# Of a reply's message: fields whose strings are not shown as text, and those of nested objects whose strings are.
_NO_TEXT = frozenset({"role", "name", "id", "tool_calls", "function_call", "tool_call_id"})
_NESTED_TEXT = frozenset({"text", "refusal", "thinking", "reasoning", "summary", "transcript", "content"})

# A word in the type of a part that has no text, and what we call its kind.
_KINDS = ("image", "audio", "video", "file")


def new_turns(turns: Sequence[Any], is_models: Callable[[Any], bool]) -> range:
    """The places of the turns after the model's last reply.

    What the model seems to have said at the very end is the beginning of a reply that the client put into its mouth:
    it is new too, and does not hide the turn before it.
    """
    end = len(turns)
    while end and is_models(turns[end - 1]):
        end -= 1
    begin = end
    while begin and not is_models(turns[begin - 1]):
        begin -= 1
    return range(begin, len(turns))


def earlier_turns(turns: Sequence[Any], new: range, most: int = 2, characters: int = 240) -> str:
    """The user's last turns before the new ones, each cut to its end."""
    said = [one for one in turns[: new.start] if isinstance(one, dict) and one.get("role") == "user"][-most:]
    texts = [" ".join(part.text for part in content_segments(one.get("content"), (), "user")) for one in said]
    return "\n".join(text[-characters:] for text in texts if text)


def content_segments(content: Any, path: Path, kind: Kind, group: int = 0) -> list[Segment]:
    """The texts of a message's content: a string, or an array of parts."""
    if isinstance(content, str):
        return [Segment(kind, path, content, group)] if content.strip() else []
    found: list[Segment] = []
    for position, part in enumerate(content if isinstance(content, list) else ()):
        for name in ("text", "refusal"):
            text = part.get(name) if isinstance(part, dict) else None
            if isinstance(text, str) and text.strip():
                found.append(Segment(kind, (*path, position, name), text, group))
    return found


def unchecked_parts(content: Any) -> list[str]:
    """The kinds of the parts of a message's content that are no text."""
    parts = content if isinstance(content, list) else [content] if isinstance(content, dict) else []
    return [unchecked_kind(part) for part in parts if isinstance(part, dict) and not _has_text(part)]


def unchecked_kind(part: Mapping[str, Any]) -> str:
    named = str(part.get("type"))
    return next((kind for kind in _KINDS if kind in named), "other")


def _has_text(part: Mapping[str, Any]) -> bool:
    return any(isinstance(part.get(name), str) for name in ("text", "refusal"))


def reply_texts(message: Mapping[str, Any], skip: frozenset[str] = _NO_TEXT) -> list[tuple[str, str]]:
    """What of a reply's message (or delta) is shown: field and text, fields that we do not know included.

    What is nested (the parts of a content array, reasoning details, a transcript of speech) is joined. Not covered:
    pictures, sound, and what an odd server writes beside the message.
    """
    texts: list[tuple[str, str]] = []
    for name, value in message.items():
        if not value or name in skip:
            continue
        text = value if isinstance(value, str) else "".join(_nested(value))
        if text:
            texts.append((name, text))
    return texts


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


def tool_arguments(message: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The arguments of the tool calls in a reply's message as text, each with its path in the message."""
    calls = message.get("tool_calls")
    found: list[tuple[Path, str]] = []
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        place = ("custom", "input") if isinstance(call, dict) and "custom" in call else ("function", "arguments")
        found.append((("tool_calls", position, *place), _arguments(call)))
    if message.get("function_call"):
        found.append((("function_call", "arguments"), _arguments({"function": message["function_call"]})))
    return [(path, text) for path, text in found if text]


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
