"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from gateway.call import Body, Kind, Path, Piece, Said, Segment, Words
from gateway.errors import BadRequest
from gateway.forms.choices import Choices
from gateway.forms.places import at, put
from gateway.forms.texts import (
    content_segments,
    earlier_turns,
    new_turns,
    reply_texts,
    tool_arguments,
    tool_pieces,
    unchecked_parts,
)
from gateway.forms.valid import (
    ROLES,
    check_case,
    check_content,
    check_count,
    check_model,
    check_object,
    check_options,
    missing,
)

_KINDS: Mapping[str, Kind] = {"user": "user", "assistant": "user", "tool": "tool", "function": "tool"}


class Chat(Choices):
    """A `Form`."""

    endpoint = "chat_completions"
    path = "/chat/completions"
    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def check(self, body: Body, most_messages: int) -> int:
        check_case(body, None)
        check_model(body)
        check_options(body)
        messages = body.get("messages")
        if messages is None:
            raise missing("messages")
        if not isinstance(messages, list):
            raise BadRequest("'messages' must be an array", param="messages", code="invalid_type")
        check_count(messages, most_messages, "messages")
        return sum(check_message(message, f"messages[{index}]") for index, message in enumerate(messages))

    def segments(self, body: Body) -> list[Segment]:
        return new_segments(body["messages"])

    def earlier(self, body: Body) -> str:
        return earlier_turns(body["messages"], new_turns(body["messages"], is_models))

    def unchecked(self, body: Body) -> list[str]:
        messages = body["messages"]
        new = (messages[place] for place in new_turns(messages, is_models))
        return [kind for message in new for kind in unchecked_parts(message.get("content"))]

    def guided(self, body: Body, text: str) -> Body:
        """The guidance joined to the system message, which is made where there is none."""
        messages = list(body["messages"])
        first = messages[0] if messages else {}
        if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
            messages[0] = {**first, "content": f"{first['content']}\n\n{text}"}
        else:
            messages.insert(0, {"role": "system", "content": text})
        return {**body, "messages": messages}

    def said(self, choice: Mapping[str, Any], path: Path) -> list[Said]:
        message = choice.get("message") or {}
        here = (*path, "message")
        texts = [Said(name, (*here, name), text) for name, text in reply_texts(message)]
        return texts + [Said("tool", (*here, *place), text, tool=True) for place, text in tool_arguments(message)]

    def rewritten(self, body: Body, said: Said, text: str) -> Body:
        """A content array becomes one part; other nesting is dropped."""
        value: Any = text
        if not said.tool and not isinstance(at(body, said.path), str):
            value = [{"type": "text", "text": text}] if said.name == "content" else None
        changed = put(body, said.path, value)
        return put(changed, (*said.path[:2], "logprobs"), None)

    def pieces(self, choice: Mapping[str, Any], index: int) -> list[Piece]:
        delta = choice.get("delta")
        if not delta:
            return []
        found = [Piece(index, name, text) for name, text in reply_texts(delta)]
        return found + [Piece(index, name, text, tool=True) for name, text in tool_pieces(delta)]

    def is_choice(self, choice: Mapping[str, Any], *, streamed: bool) -> bool:
        said = choice.get("delta" if streamed else "message")
        if said is None:
            return streamed
        if not isinstance(said, dict) or not isinstance(said.get("content"), (str, list, NoneType)):
            return False
        calls = said.get("tool_calls")
        if not isinstance(calls, (list, NoneType)) or not isinstance(said.get("function_call"), (dict, NoneType)):
            return False
        return all(
            isinstance(call, dict)
            and isinstance(call.get("function"), (dict, NoneType))
            and isinstance(call.get("custom"), (dict, NoneType))
            for call in calls or []
        )

    def refused_choice(self, index: int, words: Words) -> dict[str, Any]:
        message = {"role": "assistant", "content": words.content, "refusal": words.refusal}
        return {"index": index, "finish_reason": "content_filter", "logprobs": None, "message": message}

    def refusal_deltas(self, words: Words, *, begun: bool, spoken: bool) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        if not begun:
            deltas.append({"role": "assistant", "content": ""})
        elif spoken and words.content is not None:
            deltas.append({"content": "\n\n"})
        shown = {"content": words.content, "refusal": words.refusal}
        deltas.append({name: text for name, text in shown.items() if text is not None})
        return [{"delta": delta} for delta in deltas]

    def blank(self) -> dict[str, Any]:
        return {"delta": {}}


def new_segments(messages: list[dict[str, Any]]) -> list[Segment]:
    """The texts after the model's last reply: user turns, and tool results, which are untrusted."""
    found: list[Segment] = []
    for place in new_turns(messages, is_models):
        kind = _KINDS.get(str(messages[place].get("role")))
        if kind is not None:
            found += content_segments(messages[place].get("content"), ("messages", place, "content"), kind)
    return found


def check_message(message: object, param: str) -> int:
    """The characters of text in a valid message."""
    found = check_object(message, param)
    role = found.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"'{param}.role' must be one of {', '.join(sorted(ROLES))}", param=f"{param}.role")
    content = found.get("content")
    if content is None:
        if role != "assistant" and not (role == "function" and "content" in found):
            raise BadRequest(f"'{param}.content' is missing", param=f"{param}.content", code="invalid_type")
        return 0
    return check_content(content, f"{param}.content")


def is_models(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


CHAT = Chat()
