"""The checkable text of a request: the turns that are new, each with its place, so that a rewrite can be put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gateway.chat import Message

Kind = Literal["user", "tool"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One text. `part` is its index in a content array, None where the content is a string."""

    kind: Kind
    message: int
    part: int | None
    text: str


def new_segments(messages: list[Message]) -> list[Segment]:
    """The texts after the last assistant message: user turns, and tool results, which are untrusted."""
    found: list[Segment] = []
    for index in range(len(messages) - 1, -1, -1):
        role = messages[index].get("role")
        if role == "assistant":
            break
        if role == "user":
            found[:0] = _of(messages[index], index, "user")
        elif role in ("tool", "function"):
            found[:0] = _of(messages[index], index, "tool")
    return found


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


def reply_texts(message: Message) -> list[tuple[str, str]]:
    """What of a reply's message (or delta) is shown: field and text. A content array's parts are joined."""
    texts: list[tuple[str, str]] = []
    for name in ("content", "refusal", "reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, list):
            parts = [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
            value = "\n".join(parts)
        if isinstance(value, str) and value:
            texts.append((name, value))
    return texts


def tool_arguments(message: Message) -> list[str]:
    """The arguments of the tool calls in a reply's message, JSON as text."""
    calls = [call.get("function") or call.get("custom") or {} for call in message.get("tool_calls") or []]
    if isinstance(message.get("function_call"), dict):
        calls.append(message["function_call"])
    texts = [call.get("arguments") or call.get("input") for call in calls if isinstance(call, dict)]
    return [text for text in texts if isinstance(text, str) and text]
