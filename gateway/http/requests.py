"""A request, read and validated. What we do not know we keep; what OpenAI would reject we reject in its shape.

The bytes go upstream as they came, so they must mean there what they mean here. What servers read differently is
refused: a key given twice, keys that differ in case only where we look, text that is no UTF-8, numbers out of range.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Never

from gateway.call import Call, Form
from gateway.config import Limits
from gateway.digits import number
from gateway.errors import BadRequest, TooLarge

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
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadRequest("The body has half of a surrogate pair, which is no text.", code="invalid_json") from None
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("An object in the body has the same key twice.", code="invalid_json")
    return found


def _number(text: str) -> float:
    found = number(text)
    if math.isinf(found):
        raise ValueError(text)
    return found


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


def parse(form: Form, raw: bytes, limits: Limits, request_id: str, on_block: str | None) -> Call:
    """A valid request to an endpoint. Raises `BadRequest` and `TooLarge` that name the parameter."""
    body = parse_json(raw)
    if on_block not in (None, "completion", "error"):
        raise BadRequest("the header x-guardrail-on-block must be `completion` or `error`", param="on_block")
    characters = form.check(body, limits.messages)
    check_characters(characters, limits)
    error = on_block == "error" or not form.refuses
    return Call(form, body, raw, request_id, on_block="error" if error else "completion", characters=characters)


def check_characters(characters: int, limits: Limits) -> None:
    if characters > limits.characters:
        raise TooLarge(f"at most {limits.characters} characters of text are taken", param="messages")
