"""A chat request, read and validated. What we do not know we keep; what OpenAI would reject we reject in its shape.

The bytes go upstream as they came, so they must mean there what they mean here. What servers read differently is
refused: a key given twice, keys that differ in case only where we look, text that is no UTF-8, numbers out of range.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Never

from gateway.chat import Chat, dump
from gateway.config import Limits
from gateway.errors import BadRequest, TooLarge

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

# Far more than a tool's schema needs, and far less than what exhausts the stack of whoever reads it next.
_MOST_LEVELS = 100
# The only way in for a lone surrogate is an escape; a pair of them is a character like any other.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes) -> dict[str, Any]:
    """The body as an object. Raises `BadRequest`."""
    try:
        body = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except (ValueError, RecursionError):
        raise BadRequest("We could not parse the JSON body of your request.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    _check_levels(body)
    if _SURROGATE.search(raw):
        try:
            dump(body)
        except UnicodeEncodeError:
            raise BadRequest("The body has half of a surrogate pair, which is no text.", code="invalid_json") from None
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("An object in the body has the same key twice.", code="invalid_json")
    return found


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _constant(name: str) -> Never:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _check_levels(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(_MOST_LEVELS):
        values = (value for found in level for value in (found.values() if isinstance(found, dict) else found))
        level = [value for value in values if isinstance(value, (dict, list))]
        if not level:
            return
    raise BadRequest(f"The body is nested over {_MOST_LEVELS} levels deep.", code="invalid_json")


def parse_chat(raw: bytes, limits: Limits, request_id: str, on_block: str | None) -> Chat:
    """A valid chat request. Raises `BadRequest` and `TooLarge` that name the parameter."""
    body = parse_json(raw)
    _check_case(body, None)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    if "stream" in body and body["stream"] is not None and not isinstance(body["stream"], bool):
        raise BadRequest("'stream' must be a boolean", param="stream", code="invalid_type")
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 128):
        raise BadRequest("'n' must be an integer from 1 to 128", param="n", code="invalid_value")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object", param="stream_options", code="invalid_type")
    if on_block not in (None, "completion", "error"):
        raise BadRequest("the header x-guardrail-on-block must be `completion` or `error`", param="on_block")
    _check_messages(body.get("messages"), limits)
    return Chat(body, raw, request_id, on_block="error" if on_block == "error" else "completion")


def _check_messages(messages: object, limits: Limits) -> None:
    if messages is None:
        raise BadRequest("Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise BadRequest("'messages' must be an array", param="messages", code="invalid_type")
    if not messages:
        raise BadRequest("'messages' must not be empty", param="messages", code="empty_array")
    if len(messages) > limits.messages:
        raise TooLarge(f"at most {limits.messages} messages are taken", param="messages")
    characters = 0
    for index, message in enumerate(messages):
        characters += _check_message(message, f"messages[{index}]")
    if characters > limits.characters:
        raise TooLarge(f"at most {limits.characters} characters of text are taken", param="messages")


def _check_message(message: object, param: str) -> int:
    """The characters of text in a valid message."""
    if not isinstance(message, dict):
        raise BadRequest(f"'{param}' must be an object", param=param, code="invalid_type")
    _check_case(message, param)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"'{param}.role' must be one of {', '.join(sorted(ROLES))}", param=f"{param}.role")
    content = message.get("content")
    if isinstance(content, str):
        return len(content)
    if content is None:
        if role != "assistant":
            raise BadRequest(f"'{param}.content' is missing", param=f"{param}.content", code="invalid_type")
        return 0
    if not isinstance(content, list):
        raise BadRequest(f"'{param}.content' must be a string or an array", param=f"{param}.content")
    characters = 0
    for position, part in enumerate(content):
        where = f"{param}.content[{position}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise BadRequest(f"'{where}' must be an object with a type", param=where, code="invalid_type")
        _check_case(part, where)
        text = part.get("text")
        if part["type"] == "text" and not isinstance(text, str):
            raise BadRequest(f"'{where}.text' must be a string", param=f"{where}.text", code="invalid_type")
        characters += len(text) if isinstance(text, str) else 0
    return characters


def _check_case(found: Mapping[str, Any], param: str | None) -> None:
    """Some servers match keys whatever their case, and would read `Content` where we have checked `content`."""
    if len({key.casefold() for key in found}) != len(found):
        raise BadRequest(f"'{param or 'the body'}' has keys that differ in case only", param=param, code="invalid_json")
