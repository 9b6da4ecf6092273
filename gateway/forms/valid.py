"""What requests of all endpoints have in common, and how they are refused: in OpenAI's shape, naming the parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import BadRequest, TooLarge

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

# As many inputs as OpenAI takes in one request for embeddings.
MOST_INPUTS = 2048


def check_model(body: Mapping[str, Any]) -> None:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")


def check_options(body: Mapping[str, Any]) -> None:
    """Those that decide what we send: `stream`, `stream_options`, `n`."""
    if "stream" in body and body["stream"] is not None and not isinstance(body["stream"], bool):
        raise BadRequest("'stream' must be a boolean", param="stream", code="invalid_type")
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 128):
        raise BadRequest("'n' must be an integer from 1 to 128", param="n", code="invalid_value")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object", param="stream_options", code="invalid_type")


def check_count(found: list[Any], most: int, param: str) -> None:
    if not found:
        raise BadRequest(f"'{param}' must not be empty", param=param, code="empty_array")
    if len(found) > most:
        raise TooLarge(f"at most {most} {param} are taken", param=param)


def check_object(found: object, param: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise BadRequest(f"'{param}' must be an object", param=param, code="invalid_type")
    check_case(found, param)
    return found


def check_case(found: Mapping[str, Any], param: str | None) -> None:
    """Some servers match keys whatever their case, and would read `Content` where we have checked `content`."""
    if len({key.casefold() for key in found}) != len(found):
        raise BadRequest(f"'{param or 'the body'}' has keys that differ in case only", param=param, code="invalid_json")


def missing(param: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def check_content(content: object, param: str) -> int:
    """The characters of text in a message's content: a string, or an array of parts."""
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list):
        raise BadRequest(f"'{param}' must be a string or an array", param=param, code="invalid_type")
    characters = 0
    for position, part in enumerate(content):
        where = f"{param}[{position}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise BadRequest(f"'{where}' must be an object with a type", param=where, code="invalid_type")
        check_case(part, where)
        text = part.get("text")
        if part["type"] in ("text", "input_text", "output_text") and not isinstance(text, str):
            raise BadRequest(f"'{where}.text' must be a string", param=f"{where}.text", code="invalid_type")
        characters += len(text) if isinstance(text, str) else 0
    return characters


def check_inputs(found: object, param: str) -> int:
    """The characters in a string, an array of strings, or tokens, of which there are none."""
    if isinstance(found, str):
        return len(found)
    if not isinstance(found, list):
        raise BadRequest(f"'{param}' must be a string or an array", param=param, code="invalid_type")
    check_count(found, most=max(MOST_INPUTS, len(found) if _tokens(found) else 0), param=param)
    if _tokens(found) or all(isinstance(one, list) and _tokens(one) for one in found):
        return 0
    if not all(isinstance(one, str) for one in found):
        raise BadRequest(f"'{param}' must be strings, or tokens", param=param, code="invalid_type")
    return sum(map(len, found))


def _tokens(found: list[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in found)
