"""The items of `/v1/responses`: what a request says with them, and what strings the model's own items hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.call import Body, Kind, Path, Said, Segment
from gateway.errors import BadRequest
from gateway.forms.places import strings
from gateway.forms.texts import content_segments, earlier_turns, new_turns, unchecked_kind, unchecked_parts
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

# Members that hold no text that anybody reads: names, states, and data of which nothing can be read.
NO_TEXT = frozenset(
    {
        "id", "type", "role", "status", "phase", "name", "object", "call_id", "item_id", "server_label", "container_id",
        "approval_request_id", "previous_response_id", "encrypted_content", "annotations", "logprobs", "obfuscation",
        "image_url", "file_id", "file_data", "file_url", "result", "data", "partial_image_b64", "format", "quality",
        "size", "background", "mime_type",
    }
)  # fmt: skip
# What makes a conversation go on without an `input`.
_INSTEAD_OF_INPUT = ("prompt", "conversation", "previous_response_id")


def check_request(body: Body, most_items: int) -> int:
    """How many characters of text a valid request has. Raises `BadRequest` and `TooLarge`."""
    check_case(body, None)
    if body.get("prompt") is None:
        check_model(body)
    check_options(body)
    given = body.get("input")
    if given is None:
        if all(body.get(name) is None for name in _INSTEAD_OF_INPUT):
            raise missing("input")
        return 0
    if isinstance(given, str):
        return len(given)
    if not isinstance(given, list):
        raise BadRequest("'input' must be a string or an array", param="input", code="invalid_type")
    check_count(given, most_items, "input")
    return sum(_check_item(item, f"input[{index}]") for index, item in enumerate(given))


def _check_item(item: object, param: str) -> int:
    found = check_object(item, param)
    kind = found.get("type")
    if not isinstance(kind, (str, type(None))):
        raise BadRequest(f"'{param}.type' must be a string", param=f"{param}.type", code="invalid_type")
    if kind not in (None, "message"):
        return sum(len(text) for _, text in strings(found, NO_TEXT))
    role = found.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"'{param}.role' must be one of {', '.join(sorted(ROLES))}", param=f"{param}.role")
    return check_content(found.get("content"), f"{param}.content")


def new_segments(body: Body) -> list[Segment]:
    """The texts after the model's last item, and the variables of a prompt kept upstream."""
    given = body.get("input")
    found: list[Segment] = []
    if isinstance(given, str):
        found += content_segments(given, ("input",), "user")
    elif isinstance(given, list):
        for place in new_turns(given, _is_models):
            found += _of_item(given[place], ("input", place))
    return found + list(_variables(body))


def earlier(body: Body) -> str:
    """The user's last turns before the new items."""
    given = body.get("input")
    return earlier_turns(given, new_turns(given, _is_models)) if isinstance(given, list) else ""


def _of_item(item: Mapping[str, Any], path: Path) -> list[Segment]:
    if _is_message(item):
        trusted = item["role"] in ("system", "developer")
        return [] if trusted else content_segments(item.get("content"), (*path, "content"), "user")
    kind: Kind = "tool" if _is_output(item) else "user"
    return [Segment(kind, (*path, *place), text) for place, text in strings(item, NO_TEXT) if text.strip()]


def _variables(body: Body) -> Iterator[Segment]:
    prompt = body.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    for place, text in strings(variables, NO_TEXT):
        if text.strip():
            yield Segment("user", ("prompt", "variables", *place), text)


def unchecked_items(body: Body) -> list[str]:
    """The kinds of what is new and no text."""
    given = body.get("input")
    found: list[str] = []
    for place in new_turns(given, _is_models) if isinstance(given, list) else ():
        item = given[place] if isinstance(given, list) else {}
        found += unchecked_parts(item.get("content"))
        if _is_output(item):
            found += unchecked_parts(item.get("output"))
    prompt = body.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    for value in variables.values() if isinstance(variables, dict) else ():
        if isinstance(value, dict) and not isinstance(value.get("text"), str):
            found.append(unchecked_kind(value))
    return found


def said_by(item: Mapping[str, Any], path: Path) -> list[Said]:
    """The texts of an item that the model made; all but messages and reasoning are tools' calls."""
    kind = item.get("type")
    tool = kind not in ("message", "reasoning", None)
    found = []
    for place, text in strings(item, NO_TEXT):
        last = place[-1] if place else ""
        name = "refusal" if last == "refusal" else "content" if kind == "message" else str(kind)
        found.append(Said(name, (*path, *place), text, tool))
    return found


def _is_message(item: Mapping[str, Any]) -> bool:
    return item.get("type") in (None, "message") and isinstance(item.get("role"), str)


def _is_output(item: Mapping[str, Any]) -> bool:
    return str(item.get("type")).endswith(("_output", "_response"))


def _is_models(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    if _is_message(item):
        return bool(item["role"] == "assistant")
    return not _is_output(item)
