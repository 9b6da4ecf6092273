"""Numbers that keep their digits, and JSON that is otherwise what the standard library writes."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.digits import Number, number, write

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.booleans())
def test_writes_what_the_standard_library_writes(value: Any, ensure_ascii: bool) -> None:
    expected = json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"))
    assert write(value, ensure_ascii=ensure_ascii) == expected
    assert write(json.loads(expected, parse_float=number), ensure_ascii=ensure_ascii) == expected


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25}([eE][+-]?[0-9]{1,2})?|[eE][+-]?[0-9]{1,2})", fullmatch=True)
)
def test_a_number_keeps_its_text_and_is_what_it_was(text: str) -> None:
    body = json.loads(f'{{"a":[{text},{{"b":{text}}}]}}', parse_float=number)
    assert write(body, ensure_ascii=False) == f'{{"a":[{text},{{"b":{text}}}]}}'
    assert body["a"][0] == float(text)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))])
def test_a_copy_keeps_its_text(again: Any) -> None:
    found = again(number("0.10"))
    assert (found, found.text, type(found)) == (0.1, "0.10", Number)


def test_deep_nesting_is_written() -> None:
    value: Any = number("1e-5")
    for _ in range(5000):
        value = [value]
    assert write(value, ensure_ascii=False) == "[" * 5000 + "1e-5" + "]" * 5000
