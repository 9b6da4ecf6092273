"""What is no valid request gets the right status and OpenAI's error object, never a 500, and reaches no model."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.call import UNCHECKED, Words
from gateway.config import Limits
from gateway.errors import BadRequest, TooLarge
from gateway.forms.chat import CHAT
from gateway.forms.completions import COMPLETIONS
from gateway.forms.embeddings import EMBEDDINGS
from gateway.forms.places import at
from gateway.forms.responses import RESPONSES
from gateway.http.requests import parse
from tests.fakes import completion
from tests.gateway.http.conftest import HELLO, Front, chat, check_error

USER = {"role": "user", "content": "Hello"}


def nested(levels: int) -> bytes:
    return b'{"model":"m","messages":[' + json.dumps(USER).encode() + b'],"x":' + b"[" * levels + b"]" * levels + b"}"


MALFORMED = [
    b"",
    b" ",
    b"{",
    b"nonsense",
    b"[]",
    b'"text"',
    b"null",
    b"1",
    b"{'model': 'm'}",
    b'{"model": "m",}',
    b'{"model": "m"} {}',
    json.dumps(HELLO).encode() + b"\x00",
    json.dumps(HELLO).encode("utf-16"),
    b"\xef\xbb\xbf" + json.dumps(HELLO).encode(),
    b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"half \\ud83d of a pair"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"\\uDFFF":1}',
    b'{"model":"m","messages":[{"role":"user","content":"a\nb"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"temperature":NaN}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"temperature":-Infinity}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"temperature":1e999}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"seed":' + b"9" * 5000 + b"}",
    nested(120),
    nested(990),
    nested(100_000),
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed(front: Front, body: bytes) -> None:
    check_error(front.ask(body), 400, "invalid_json", front.upstream)
    assert front.upstream.bodies == []


AMBIGUOUS = [
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"messages":[{"role":"user","content":"MARK-HARM"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello","\\u0063ontent":"MARK-HARM"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello","Content":"MARK-HARM"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"Messages":[{"role":"user","content":"MARK-HARM"}]}',
    b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"me\xc5\xbfsages":[]}',
    b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"Hello","Text":"MARK-HARM"}]}]}',
]


@pytest.mark.parametrize("body", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_what_another_parser_could_read_otherwise(front: Front, body: bytes) -> None:
    """Some parsers keep the first of two equal keys, some the last; Go's match keys whatever their case."""
    check_error(front.ask(body), 400, "invalid_json", front.upstream)
    assert front.upstream.bodies == []


INVALID: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"messages": [USER]}, "model", None),
    ({"model": None, "messages": [USER]}, "model", None),
    ({"model": "", "messages": [USER]}, "model", None),
    ({"model": ["m"], "messages": [USER]}, "model", None),
    ({"model": "m"}, "messages", "missing_required_parameter"),
    ({"model": "m", "messages": None}, "messages", "missing_required_parameter"),
    ({"model": "m", "Messages": [USER]}, "messages", "missing_required_parameter"),
    ({"model": "m", "messages": []}, "messages", "empty_array"),
    ({"model": "m", "messages": {}}, "messages", "invalid_type"),
    ({"model": "m", "messages": "Hello"}, "messages", "invalid_type"),
    ({"model": "m", "messages": ["Hello"]}, "messages[0]", "invalid_type"),
    ({"model": "m", "messages": [USER, None]}, "messages[1]", "invalid_type"),
    ({"model": "m", "messages": [{}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": "root", "content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": "User", "content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": ["user"], "content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": {}, "content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": 1, "content": "Hello"}]}, "messages[0].role", None),
    ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
    ({"model": "m", "messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"model": "m", "messages": [{"role": "tool", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"model": "m", "messages": [{"role": "function"}]}, "messages[0].content", "invalid_type"),
    ({"model": "m", "messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type"),
    (
        {"model": "m", "messages": [{"role": "user", "content": {"text": "Hello"}}]},
        "messages[0].content",
        "invalid_type",
    ),
    ({"model": "m", "messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content[0]", "invalid_type"),
    ({"model": "m", "messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]", "invalid_type"),
    (
        {"model": "m", "messages": [{"role": "user", "content": [{"type": 1, "text": "Hello"}]}]},
        "messages[0].content[0]",
        "invalid_type",
    ),
    (
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "invalid_type",
    ),
    (
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": ["Hello"]}]}]},
        "messages[0].content[0].text",
        "invalid_type",
    ),
    (chat("Hello", stream="yes"), "stream", "invalid_type"),
    (chat("Hello", stream=1), "stream", "invalid_type"),
    (chat("Hello", stream={}), "stream", "invalid_type"),
    (chat("Hello", stream=True, stream_options=[1]), "stream_options", "invalid_type"),
    (chat("Hello", n=0), "n", "invalid_value"),
    (chat("Hello", n=-1), "n", "invalid_value"),
    (chat("Hello", n=129), "n", "invalid_value"),
    (chat("Hello", n=1.5), "n", "invalid_value"),
    (chat("Hello", n=True), "n", "invalid_value"),
    (chat("Hello", n="2"), "n", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), INVALID, ids=range(len(INVALID)))
def test_invalid(front: Front, body: dict[str, Any], param: str | None, code: str | None) -> None:
    response = front.ask(body)
    check_error(response, 400, code, front.upstream)
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.headers["x-guardrail-decision"] == "error"
    assert front.upstream.bodies == []


VALID: list[dict[str, Any]] = [
    chat("Hello", n=None, stream=None, stream_options=None),
    chat("Hello", stream=False, stream_options={"include_usage": 1}),
    chat(""),
    chat(" "),
    {"model": "m", "messages": [{"role": role, "content": "Hello"} for role in ("system", "developer", "user")]},
    {"model": "m", "messages": [{"role": "user", "content": []}]},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "eA"}}]}]},
    {"model": "m", "messages": [{"role": "assistant"}, {"role": "function", "name": "f", "content": "1"}]},
    {"model": "m", "messages": [USER, {"role": "assistant"}, {"role": "function", "name": "f", "content": None}]},
    {"model": "m", "messages": [{"role": "assistant", "tool_calls": "odd"}, USER], "tools": 1, "temperature": "hot"},
]


@pytest.mark.parametrize("body", VALID, ids=range(len(VALID)))
def test_valid(front: Front, body: dict[str, Any]) -> None:
    """What the checks do not read is the model server's to judge."""
    assert front.ask(body).status_code == 200
    assert json.loads(front.upstream.bodies[0]) == body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("levels", [10, 80, 97, 98, 99, 100, 500, 900, 950])
def test_depth_that_passes_can_be_written_again(front: Front, levels: int, stream: bool) -> None:
    """On route advise the body is rewritten, deeper in the stack than it was parsed."""
    body = (
        nested(levels)
        .replace(b"Hello", b"MARK-ADVICE")
        .replace(b'{"model"', b'{"stream":%s,"model"' % str(stream).lower().encode())
    )
    assert front.ask(body).status_code == (200 if levels < 100 else 400)


def test_body_over_the_limit_by_its_declared_length(front: Front) -> None:
    check_error(front.ask(b" " * 20_000_000), 413, "request_too_large", front.upstream)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as raw:
        raw.sendall(head)  # and not one byte of the body
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert front.upstream.bodies == []
    assert front.ask(HELLO).status_code == 200


def test_body_over_the_limit_in_chunks_of_unknown_number(front: Front) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(320):
            yield b" " * 65536

    response = front.client.post("/v1/chat/completions", content=pieces())
    assert "content-length" not in response.request.headers
    check_error(response, 413, "request_too_large", front.upstream)
    assert front.upstream.bodies == []
    assert front.ask(HELLO).status_code == 200


def test_body_sent_in_chunks_is_taken(front: Front) -> None:
    raw = json.dumps(HELLO).encode()
    response = front.client.post("/v1/chat/completions", content=iter([raw[:10], raw[10:11], raw[11:]]))
    assert response.status_code == 200
    assert front.upstream.bodies == [raw]


def test_limits_of_messages_and_characters(front: Front) -> None:
    assert front.ask({"model": "m", "messages": [USER] * 50}).status_code == 200
    check_error(front.ask({"model": "m", "messages": [USER] * 51}), 413, "request_too_large", front.upstream)
    parts = [{"type": "text", "text": "word " * 1_000}] * 3
    assert front.ask({"model": "m", "messages": [{"role": "user", "content": parts}]}).status_code == 200
    over = {
        "model": "m",
        "messages": [{"role": "assistant", "content": "word " * 1_001}, *chat("word " * 3_000)["messages"]],
    }
    response = front.ask(over)
    check_error(response, 413, "request_too_large", front.upstream)
    assert response.json()["error"]["param"] == "messages"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
odd = st.one_of(
    values, st.sampled_from(["user", "assistant", "text", "MARK-ADVICE", 128, [[]], [{}], {"type": "text"}])
)
TEMPLATE = {
    "model": "m",
    "stream": False,
    "n": 1,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "1", "tool_call_id": "1"},
        {"role": "user", "content": "MARK-ADVICE"},
    ],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(TEMPLATE))


def mutate(body: Any, path: tuple[Any, ...], value: Any) -> None:
    try:
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = value
    except (LookupError, TypeError):
        assume(False)  # an earlier change has removed the place


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), odd), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_valid_body_gone_wrong_is_never_a_500(front: Front, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    body = json.loads(json.dumps(TEMPLATE))
    for path, value in changes:
        mutate(body, path, copy.deepcopy(value))
    response = front.ask(json.dumps(body).encode())
    assert response.status_code in (200, 400, 413), response.text
    if response.status_code != 200:
        check_error(response, response.status_code, response.json()["error"]["code"], None)


@given(raw=st.one_of(st.binary(max_size=50), values.map(lambda value: json.dumps(value).encode())))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_never_a_500(front: Front, raw: bytes) -> None:
    response = front.ask(raw)
    check_error(response, 400, response.json()["error"]["code"], None)


@given(body=values, inner=values)
@settings(max_examples=300, deadline=None)
def test_parsing_raises_nothing_else(body: Any, inner: Any) -> None:
    """In process, where it costs less than a request."""
    for candidate in (
        body,
        {"model": "m", "messages": body},
        {"model": "m", "messages": [{"role": "user", "content": inner}]},
        {"model": "m", "input": body, "prompt": inner},
        {"model": "m", "input": [{"role": "user", "content": inner}], "prompt": body},
        {"model": "m", "input": [{"type": inner, "output": body}, body], "prompt": [inner], "suffix": body},
        {"model": "m", "input": [inner, inner], "prompt": {"variables": body}, "instructions": inner},
    ):
        for form in (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS):
            try:
                call = parse(form, json.dumps(candidate).encode(), Limits(), "r", None)
            except (BadRequest, TooLarge):
                continue
            assert call.with_body(form.guided(dict(call.body), "Guidance.")).payload()
            assert all(segment.text == at(call.body, segment.path) for segment in form.segments(call.body))
            assert set(form.unchecked(call.body)) <= set(UNCHECKED)
            assert form.refusal(call, Words("No.", None), {})


def test_reply_is_untouched_by_a_refused_request_before_it(front: Front) -> None:
    """On the same connection."""
    front.upstream.reply = completion("First.")
    assert front.ask(b"{").status_code == 400
    assert front.ask(HELLO).json() == front.upstream.reply
