"""What a model server says when it fails: the error object in its body, and what an error in a stream amounts to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Errors of the server itself, or between us and it: nothing that a client should read.
_ITS_OWN = re.compile(r"internal|server|api_?error|auth|permission|api_?key|forbidden", re.IGNORECASE)
_TOO_MANY = re.compile(r"rate_?limit|quota|^(tokens|requests)$", re.IGNORECASE)
_REQUEST = re.compile(r"invalid_?request|bad_?request|context_length|content_(filter|policy)", re.IGNORECASE)


def error_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error object of a rejection: OpenAI's, or the same members without their wrapping, or FastAPI's `detail`."""
    error = body.get("error")
    if isinstance(error, dict):
        return error
    if body.get("object") == "error" or isinstance(body.get("message"), str):
        return {name: value for name, value in body.items() if name != "object"}
    said = error if isinstance(error, str) else body.get("detail")
    return {"message": said} if isinstance(said, str) else None


def in_stream(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error object of a stream's event that tells of nothing but a failure, as chats or responses send it."""
    kind = body.get("type")
    if kind == "error":  # an event of responses, its members beside its name
        flat = {name: value for name, value in body.items() if name not in ("type", "sequence_number")}
        return error_of(flat) or flat
    if "choices" in body:
        return None
    if body.get("object") == "error" or ("error" in body and not isinstance(kind, str)):
        return error_of(body) or {}
    return None


def status_of(error: Mapping[str, Any]) -> int:
    """The status that an error would have had outside a stream: its own number if it has one, else by its name.

    200 where it has a name that tells neither: the server's answer was that. 500 where there is no name.
    """
    for name in ("status", "status_code", "code"):
        value = error.get(name)
        if isinstance(value, int | str) and re.fullmatch(r"[1-5]\d\d", str(value)):
            return int(value)
    names = [value for value in (error.get("code"), error.get("type")) if isinstance(value, str) and value]
    if not names or any(_ITS_OWN.search(name) for name in names):
        return 500
    if any(_TOO_MANY.search(name) for name in names):
        return 429
    return 400 if any(_REQUEST.search(name) for name in names) else 200
