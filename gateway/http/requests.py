"""A chat request, read and validated. What we do not know we keep; what OpenAI would reject we reject in its shape."""

from __future__ import annotations

import json
from typing import Any

from gateway.chat import Chat
from gateway.config import Limits
from gateway.errors import BadRequest, TooLarge

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def parse_json(raw: bytes) -> dict[str, Any]:
    """The body as an object. Raises `BadRequest`."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("We could not parse the JSON body of your request.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return body


def parse_chat(raw: bytes, limits: Limits, request_id: str, on_block: str | None) -> Chat:
    """A valid chat request. Raises `BadRequest` and `TooLarge` that name the parameter."""
    body = parse_json(raw)
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
    if message.get("role") not in ROLES:
        raise BadRequest(f"'{param}.role' must be one of {', '.join(sorted(ROLES))}", param=f"{param}.role")
    content = message.get("content")
    if isinstance(content, str):
        return len(content)
    if content is None:
        if message["role"] != "assistant":
            raise BadRequest(f"'{param}.content' is missing", param=f"{param}.content", code="invalid_type")
        return 0
    if not isinstance(content, list):
        raise BadRequest(f"'{param}.content' must be a string or an array", param=f"{param}.content")
    characters = 0
    for position, part in enumerate(content):
        where = f"{param}.content[{position}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise BadRequest(f"'{where}' must be an object with a type", param=where, code="invalid_type")
        text = part.get("text")
        if part["type"] == "text" and not isinstance(text, str):
            raise BadRequest(f"'{where}.text' must be a string", param=f"{where}.text", code="invalid_type")
        characters += len(text) if isinstance(text, str) else 0
    return characters
