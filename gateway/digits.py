"""JSON whose numbers keep the digits they came with: what is not ours to change is not ours to spell anew.

A parser that makes floats writes `0.10` as `0.1`, `1e-5` as `1e-05`, and drops what is past the 17th digit. Whole
numbers keep theirs anyway, all but `-0`.
"""

from __future__ import annotations

import json
from typing import Any

_PLAIN = frozenset({str, int, float, bool, type(None)})


class Number(float):
    """A float that knows how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = str(text)
        return number


def number(text: str) -> float:
    """A number of a JSON document, for `parse_float`; one that Python would write alike is a mere float."""
    plain = float(text)
    return plain if repr(plain) == text else Number(text)


def write(value: Any, *, ensure_ascii: bool) -> str:
    """Compact JSON. Not recursive, so that what could be read can be written."""
    encode = json.JSONEncoder(ensure_ascii=ensure_ascii, separators=(",", ":")).encode
    parts: list[str] = []
    waiting: list[tuple[bool, Any]] = [(False, value)]  # whether it is written already, and what it is
    while waiting:
        written, one = waiting.pop()
        if written:
            parts.append(one)
        elif isinstance(one, Number):
            parts.append(one.text)
        elif not isinstance(one, dict | list | tuple) or _is_plain(one):
            parts.append(encode(one))
        else:
            waiting += reversed(_members(one, encode) if isinstance(one, dict) else _items(one))
    return "".join(parts)


def _is_plain(found: dict[str, Any] | list[Any] | tuple[Any, ...]) -> bool:
    return all(type(one) in _PLAIN for one in (found.values() if isinstance(found, dict) else found))


def _members(found: dict[str, Any], encode: Any) -> list[tuple[bool, Any]]:
    steps: list[tuple[bool, Any]] = []
    for name, one in found.items():
        steps += [(True, f"{',' if steps else '{'}{encode(name)}:"), (False, one)]
    return [*steps, (True, "}")]


def _items(found: list[Any] | tuple[Any, ...]) -> list[tuple[bool, Any]]:
    steps: list[tuple[bool, Any]] = []
    for one in found:
        steps += [(True, "," if steps else "["), (False, one)]
    return [*steps, (True, "]")]
