"""The model server fails, in every way that it can: the right status, a right error object, and nothing given away."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from gateway.app import create_app
from gateway.call import Call, Chunk, Completion
from gateway.config import load
from tests.conftest import QUIET, Running
from tests.endpoints import events, response_events
from tests.fakes import Recorder, Wire, Words, chunk, completion, eventually, http, samples, spoken
from tests.gateway.http.conftest import HELLO, Front, check_error, check_private

SAID = {"message": "too many tokens", "type": "invalid_request_error", "param": "messages", "code": "context_length"}
STREAM = {**HELLO, "stream": True}
Say = Callable[..., tuple[httpx.Client, Wire]]


def ask(client: httpx.Client, stream: bool = False) -> httpx.Response:
    return client.post("/v1/chat/completions", json=STREAM if stream else HELLO)


def sse(*data: Any) -> bytes:
    return b"".join(b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n\n" for one in data)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, "context_length"),
        (404, 404, "context_length"),
        (413, 413, "context_length"),
        (422, 422, "context_length"),
        (429, 429, "context_length"),
        (401, 502, "upstream_rejected"),
        (403, 502, "upstream_rejected"),
        (500, 502, "upstream_rejected"),
        (503, 502, "upstream_rejected"),
    ],
)
def test_status_of_the_upstream(front: Front, status: int, ours: int, code: str, stream: bool) -> None:
    front.upstream.status = status
    front.upstream.reply = {"error": SAID}
    front.upstream.headers = {"retry-after": "7", "set-cookie": "a=b", "x-internal": "secret"}
    response = front.ask(STREAM if stream else HELLO)
    message = check_error(response, ours, code, front.upstream)
    assert ("too many tokens" in message) == (ours == status)
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-guardrail-decision"] == "error"
    assert "set-cookie" not in response.headers
    assert "x-internal" not in response.headers
    assert len(front.upstream.bodies) == 1


@pytest.mark.parametrize("header", [b"7\xe9", "7 \u20ac".encode(), b"\t"])
def test_odd_retry_after_is_dropped(say: Say, header: bytes) -> None:
    client, wire = say(b"HTTP/1.1 429 Slow\r\nretry-after: " + header + b"\r\ncontent-length: 2\r\n\r\n{}")
    response = ask(client)
    check_error(response, 429, "upstream_rejected", wire)
    assert "retry-after" not in response.headers


def test_upstream_that_tells_its_address_or_our_key(
    gateway: Callable[..., httpx.Client], upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream-secret")
    client = gateway(upstream={"api_key_env": "UPSTREAM_KEY"})
    upstream.status = 400
    for message in (f"see {upstream.url}/docs", "the host 127.0.0.1 is busy", "key sk-upstream-secret is not for this"):
        upstream.reply = {"error": {**SAID, "message": message}}
        assert check_error(ask(client), 400, "upstream_rejected", upstream).startswith("The model server answered")
        upstream.reply = {"error": {**SAID, "param": message}}
        check_error(ask(client), 400, "upstream_rejected", upstream)


BAD_REPLIES = {
    "html": http(200, b"<html><body>502 from a proxy</body></html>", "text/html"),
    "empty": http(200, b""),
    "array": http(200, b"[]"),
    "no choices": http(200, b'{"id":"x"}'),
    "choices null": http(200, b'{"choices":null}'),
    "choices of text": http(200, b'{"choices":["a"]}'),
    "no message": http(200, b'{"choices":[{"index":0,"text":"legacy"}]}'),
    "message of text": http(200, b'{"choices":[{"message":"Hello"}]}'),
    "content odd": http(200, b'{"choices":[{"message":{"content":{"text":"Hello"}}}]}'),
    "tool calls odd": http(200, b'{"choices":[{"message":{"content":null,"tool_calls":["f"]}}]}'),
    "tool call odd": http(200, b'{"choices":[{"message":{"content":null,"tool_calls":[{"function":"f"}]}}]}'),
    "function call odd": http(200, b'{"choices":[{"message":{"content":null,"function_call":"f"}}]}'),
    "index odd": http(200, b'{"choices":[{"index":[],"message":{"content":"Hello"}}]}'),
    "usage odd": http(200, b'{"choices":[{"message":{"content":"Hello"}}],"usage":[1]}'),
    "too deep": http(200, b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "error with 200": http(200, b'{"error":{"message":"boom"}}'),
    "redirect": http(302, b"", location="http://10.0.0.1/secret"),
    "not utf-8": http(200, b'{"choices":[{"message":{"content":"\xff"}}]}'),
    "cut off": http(200, b'{"choices":[', content_length="500"),
    "cut off in chunks": http(200, b"5\r\n{\"cho\r\n", transfer_encoding="chunked"),
    "bad gzip": http(200, b"not gzip", content_encoding="gzip"),
}  # fmt: skip


def test_reply_that_is_no_completion(say: Say) -> None:
    client, wire = say(*BAD_REPLIES.values())
    for name in BAD_REPLIES:
        message = check_error(ask(client), 502, "upstream_broken", wire)
        assert "10.0.0.1" not in message, name
    assert len(wire.requests) == len(BAD_REPLIES)


NO_HTTP = {"hangs up": b"", "not http": b"SSH-2.0-OpenSSH_9.0\r\n", "half a header": b"HTTP/1.1 200 OK\r\ncontent-"}


def test_reply_that_is_no_http(say: Say) -> None:
    client, wire = say()
    for reply in NO_HTTP.values():
        for stream in (False, True):
            wire.say(reply)
            check_error(ask(client, stream), 502, "upstream_unavailable", wire)
            assert len(wire.requests) == 2


EARLY = {
    "html": http(200, b"<html></html>", "text/html"),
    "a whole completion": http(200, json.dumps(completion()).encode()),
    "nothing": http(200, b"", "text/event-stream"),
    "comments only": http(200, b": ping\n\n: ping\n\n", "text/event-stream"),
    "no json": http(200, sse(b"{nonsense"), "text/event-stream"),
    "an array": http(200, sse(b"[]"), "text/event-stream"),
    "an error": http(200, sse({"error": {"message": "boom at 10.0.0.1"}}), "text/event-stream"),
    "an error, named": http(200, b"event: error\n" + sse({"error": "boom"}), "text/event-stream"),
    "an error, otherwise": http(200, sse({"object": "error", "message": "boom"}), "text/event-stream"),
    "choices odd": http(200, sse({"choices": {}}), "text/event-stream"),
    "choice odd": http(200, sse({"choices": ["a"]}), "text/event-stream"),
    "delta odd": http(200, sse({"choices": [{"delta": "a"}]}), "text/event-stream"),
    "index odd": http(200, sse({"choices": [{"index": "a", "delta": {}}]}), "text/event-stream"),
    "calls odd": http(200, sse({"choices": [{"delta": {"tool_calls": [1]}}]}), "text/event-stream"),
    "call odd": http(200, sse({"choices": [{"delta": {"tool_calls": [{"function": "f"}]}}]}), "text/event-stream"),
    "usage odd": http(200, sse({"choices": [], "usage": 1}), "text/event-stream"),
}


def test_stream_that_fails_before_its_first_chunk_has_its_own_status(say: Say) -> None:
    client, wire = say(*EARLY.values())
    for name in EARLY:
        response = ask(client, stream=True)
        check_error(response, 502, "upstream_broken", wire)
        assert "boom" not in response.text, name


FIRST = chunk({"role": "assistant", "content": ""})
LATE = {
    "hangs up": b"",
    "an error": sse({"error": {"message": "boom at 10.0.0.1", "code": 500}}),
    "no json": sse(b"{nonsense"),
    "odd": sse({"choices": [{"index": 0, "delta": {"content": {"a": 1}}}]}),
    "DONE without its data": b"[DONE]\n\n",
}


def test_stream_that_fails_in_the_middle_ends_with_an_error_frame(say: Say) -> None:
    hello = chunk({"content": "Hello. "})
    replies = [
        http(200, sse(FIRST, hello) + late, "text/event-stream", content_length="9999") for late in LATE.values()
    ]
    client, wire = say(*replies)
    for _ in LATE:
        response = ask(client, stream=True)
        assert response.status_code == 200
        assert response.content.startswith(sse(json.dumps(FIRST).encode()))
        assert "[DONE]" not in response.text
        assert "boom" not in response.text
        check_private(response, wire)
        last = json.loads(response.text.rstrip("\n").rpartition("data: ")[2])
        assert last.keys() == {"error"}
        assert last["error"].keys() == {"message", "type", "param", "code"}
        assert last["error"]["code"] == "upstream_broken"
    eventually(lambda: samples(client.get("/metrics").text)["hhh_inflight_requests"] == 0)


LIMITED = {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
# An error in a stream: what it is sent as, and what it is where nothing has been sent yet.
TOLD: dict[str, tuple[dict[str, Any], int]] = {
    "rate limit": (LIMITED, 429),
    "request": (SAID, 400),
    "number": ({"message": "too long", "type": "BadRequestError", "param": None, "code": 400}, 400),
    "unknown name": ({"message": "we are full", "type": "overloaded", "param": None, "code": "engine_full"}, 502),
}
UNTOLD = {
    "of its own": {"message": "boom", "type": "server_error", "param": None, "code": None},
    "of its own by number": {"message": "boom", "type": "tokens", "param": None, "code": 503},
    "of its key": {"message": "boom", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"},
    "of no name": {"message": "boom"},
    "with its address": {**LIMITED, "message": "boom at 127.0.0.1:80"},
}


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", [*TOLD, *UNTOLD])
def test_error_in_a_stream(say: Say, name: str, wrapped: bool) -> None:
    error, status = TOLD[name] if name in TOLD else (UNTOLD[name], 502)
    frame = {"error": error} if wrapped else {"object": "error", **error}
    hello = chunk({"content": "Hello. "})
    client, wire = say(
        http(200, sse(FIRST, hello, frame), "text/event-stream"), http(200, sse(frame), "text/event-stream")
    )
    late, early = ask(client, stream=True), ask(client, stream=True)
    last = json.loads(late.text.rstrip("\n").rpartition("data: ")[2])
    assert late.status_code == 200
    assert late.content.startswith(sse(FIRST, hello))
    assert "[DONE]" not in late.text
    assert last == early.json()
    if name in TOLD:
        assert last == {"error": error}
    else:
        assert last["error"]["code"] == "upstream_broken"
        assert "boom" not in late.text
    check_error(early, status, last["error"]["code"], wire)
    check_private(late, wire)


@pytest.mark.parametrize("flat", [True, False])
def test_error_in_a_stream_of_a_response(front: Front, flat: bool) -> None:
    known = response_events(["Fine. "], [])
    told = LIMITED if flat else {"error": LIMITED}
    front.upstream.chunks = [*known[:2], {**told, "type": "error", "sequence_number": 2}]
    response = front.client.post("/v1/responses", json={"model": "m", "input": "Hello", "stream": True})
    last = events(response)[-1]
    assert (last["type"], last["code"], last["message"]) == ("error", LIMITED["code"], LIMITED["message"])
    assert last["error"]["code"] == LIMITED["code"]
    assert response.text.count("event: error\n") == 1


OPENAI = {
    "x-ratelimit-remaining-requests": "99",
    "x-ratelimit-reset-tokens": "6m0s",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "openai-organization": "org-1",
}


@pytest.mark.parametrize("status", [200, 429, 500])
def test_headers_of_the_upstream(front: Front, status: int) -> None:
    front.upstream.status = status
    front.upstream.headers = {**OPENAI, "x-ratelimit-odd": "see 127.0.0.1:80", "x-other": "a", "server": "b"}
    response = front.ask(HELLO)
    kept = {name: value for name, value in response.headers.items() if name.startswith(("x-ratelimit", "openai"))}
    assert kept == (OPENAI if status != 500 else {})
    assert "x-other" not in response.headers
    assert response.headers.get("server") != "b"


def test_headers_of_the_upstream_beside_a_stream(say: Say) -> None:
    body = sse(FIRST, chunk({"content": "Hello."}), chunk({}, "stop"), b"[DONE]")
    client, _ = say(http(200, body, "text/event-stream", **{**OPENAI, "X-RateLimit-Limit-Requests": "100"}))
    response = ask(client, stream=True)
    for name, value in {**OPENAI, "x-ratelimit-limit-requests": "100"}.items():
        assert response.headers[name] == value


def test_model_server_that_dies_in_the_middle(front: Front) -> None:
    front.upstream.chunks = spoken(*["An index fund follows an index. "] * 20)
    front.upstream.die_after = 15
    response = front.ask(STREAM)
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert json.loads(response.text.rstrip("\n").rpartition("data: ")[2])["error"]["code"] == "upstream_broken"


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_listens(gateway: Callable[..., httpx.Client], stream: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    client = gateway(upstream={"base_url": f"http://127.0.0.1:{port}/v1"})
    response = ask(client, stream)
    check_error(response, 502, "upstream_unavailable", None)
    assert str(port) not in response.text


def test_no_such_host(gateway: Callable[..., httpx.Client]) -> None:
    client = gateway(upstream={"base_url": "http://no-such-host.invalid/v1"})
    response = ask(client)
    check_error(response, 502, "upstream_unavailable", None)
    assert "invalid" not in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_in_time(gateway: Callable[..., httpx.Client], upstream: Recorder, stream: bool) -> None:
    client = gateway(upstream={"timeout": {"first_byte_seconds": 0.2}, "retries": 2})
    upstream.delay_seconds = 30
    check_error(ask(client, stream), 504, "upstream_timeout", upstream)
    assert len(upstream.bodies) == 1  # the model may be at work on it: never a second copy
    assert upstream.gone.wait(20)


def test_reply_that_takes_too_long(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(upstream={"timeout": {"first_byte_seconds": 5, "total_seconds": 1.0}})
    upstream.delay_seconds = 3
    check_error(ask(client), 504, "upstream_timeout", upstream)
    upstream.reset()
    upstream.chunks = [FIRST, *[chunk({"content": "More. "})] * 100]
    upstream.chunk_seconds = 0.05
    response = ask(client, stream=True)
    assert response.status_code == 200
    assert json.loads(response.text.rstrip("\n").rpartition("data: ")[2])["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in response.text


GOOD = http(200, json.dumps(completion()).encode())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [b"", http(502, b"<html>"), http(503, b"{}"), http(504, b"")])
def test_retried(say: Say, first: bytes, stream: bool) -> None:
    good = http(200, sse(FIRST, chunk({}, "stop"), b"[DONE]"), "text/event-stream") if stream else GOOD
    client, wire = say(first, good)
    assert ask(client, stream).status_code == 200
    assert len(wire.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 501])
def test_not_retried(say: Say, status: int) -> None:
    client, wire = say(http(status, b"{}"), GOOD)
    assert ask(client).status_code == (status if status in (400, 404, 429) else 502)
    assert len(wire.requests) == 1


def test_no_retry_once_the_reply_has_begun(say: Say) -> None:
    client, wire = say(http(200, b'{"choices":[', content_length="500"), GOOD)
    check_error(ask(client), 502, "upstream_broken", wire)
    assert len(wire.requests) == 1


def test_retries_end(say: Say) -> None:
    client, wire = say(http(503, json.dumps({"error": SAID}).encode(), retry_after="2"))
    response = ask(client)
    check_error(response, 502, "upstream_rejected", wire)
    assert response.headers["retry-after"] == "2"
    assert len(wire.requests) == 2


class Faulty:
    """A model in process with a fault that nobody has foreseen, after `good` chunks."""

    def __init__(self) -> None:
        self.good = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self) -> bool:
        return True

    async def models(self) -> list[Any]:
        raise KeyError("secret")

    async def complete(self, chat: Call) -> Completion:
        raise KeyError("secret")

    async def stream(self, chat: Call) -> AsyncGenerator[Chunk, None]:
        for _ in range(self.good):
            yield Chunk(chunk({"content": "An index fund follows an index. "}))
        raise KeyError("secret")


def test_fault_of_our_own_is_a_500_that_says_nothing(serve: Callable[[Any], Running], rails: Path) -> None:
    faulty = Faulty()
    running = serve(create_app(load(rails_dir=rails, **QUIET), upstream=faulty, classifier=Words()))
    with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        for response in (ask(client), ask(client, stream=True), client.get("/v1/models"), client.get("/v1/models/m")):
            message = check_error(response, 500, "internal_error", None)
            assert "secret" not in message
            assert response.headers["x-request-id"]
        faulty.good = 10
        streamed = ask(client, stream=True)
        assert streamed.status_code == 200
        assert "secret" not in streamed.text
        assert json.loads(streamed.text.rstrip("\n").rpartition("data: ")[2])["error"]["code"] == "internal_error"
        counted = samples(client.get("/metrics").text)
        assert counted['hhh_requests_total{endpoint="chat_completions",outcome="error",policy="finance"}'] == 3
        eventually(lambda: samples(client.get("/metrics").text)["hhh_inflight_requests"] == 0)


async def test_before_it_is_loaded(rails: Path) -> None:
    app = create_app(load(rails_dir=rails, **QUIET), upstream=Faulty(), classifier=Words())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        check_error(await client.post("/v1/chat/completions", json=HELLO), 503, "not_ready", None)
        check_error(await client.get("/v1/models"), 503, "not_ready", None)
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "starting\n")
        assert (await client.get("/livez")).status_code == 200
