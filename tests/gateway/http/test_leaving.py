"""A client that leaves: the call upstream ends soon, it is counted as cancelled, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from starlette.requests import ClientDisconnect

from gateway.http.events import attended
from tests.fakes import Recorder, chunk, eventually, samples, spoken
from tests.gateway.http.conftest import HELLO, Front, chat

CANCELLED = 'hhh_requests_total{endpoint="chat_completions",outcome="cancelled",policy="finance"}'


@contextmanager
def asking(client: httpx.Client, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A request on a connection of its own, which is closed at the end, whatever has come by then."""
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as connection:
        connection.sendall(head.encode() + raw)
        yield connection


def check_cancelled(front: Front, before: dict[str, float]) -> None:
    after = eventually(lambda: (now := front.metrics())[CANCELLED] > before[CANCELLED] and now)
    assert after[CANCELLED] == before[CANCELLED] + 1
    requests = [name for name in after if name.startswith("hhh_requests_total")]
    assert sum(after[name] for name in requests) == sum(before[name] for name in requests) + 1
    eventually(lambda: front.metrics()["hhh_inflight_requests"] == 0)
    assert front.metrics()["hhh_upstream_breaker_state"] == 0
    assert front.ask(HELLO).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_model_has_said_anything(front: Front, stream: bool) -> None:
    front.upstream.delay_seconds = 60
    before = front.metrics()
    with asking(front.client, {**HELLO, "stream": stream}):
        eventually(lambda: front.upstream.bodies)
        assert front.metrics()["hhh_inflight_requests"] == 1
    assert front.upstream.gone.wait(20)
    front.upstream.delay_seconds = 0
    check_cancelled(front, before)


@pytest.mark.parametrize("pause", [0.05, 60.0], ids=["while chunks flow", "while the model is silent"])
def test_in_the_middle_of_a_stream(front: Front, pause: float) -> None:
    front.upstream.chunks = [*spoken("An index fund follows an index. ")[:2], *[chunk({"content": "More. "})] * 2000]
    front.upstream.chunk_seconds = pause
    before = front.metrics()
    with asking(front.client, {**HELLO, "stream": True}) as connection:
        assert b"HTTP/1.1 200" in connection.recv(65536)
    assert front.upstream.gone.wait(20)
    assert front.upstream.sent_chunks < 1500
    front.upstream.reset()
    check_cancelled(front, before)


def test_client_that_does_not_read(front: Front) -> None:
    """Its stream waits, the model server with it, and both end when it leaves."""
    front.upstream.chunks = [chunk({"content": "x" * 100_000 + ". "})] * 2000
    before = front.metrics()
    with asking(front.client, {**HELLO, "stream": True}):
        eventually(lambda: front.upstream.sent_chunks)
    eventually(lambda: front.metrics()[CANCELLED] > before[CANCELLED])
    assert front.upstream.sent_chunks < 1500
    front.upstream.reset()
    check_cancelled(front, before)


def test_while_it_sends_its_body(front: Front) -> None:
    before = front.metrics()
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        eventually(lambda: front.metrics()["hhh_inflight_requests"] == 1)
    check_cancelled(front, before)
    assert len(front.upstream.bodies) == 1


def test_while_triage_works(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway()
    with asking(client, chat("MARK-SLOW")):
        eventually(lambda: samples(client.get("/metrics").text)["hhh_inflight_requests"] == 1)
    eventually(lambda: samples(client.get("/metrics").text)[CANCELLED] == 1)
    eventually(lambda: samples(client.get("/metrics").text)["hhh_inflight_requests"] == 0)
    assert upstream.bodies == []


def test_a_trial_of_the_breaker_that_a_client_abandons(
    gateway: Callable[..., httpx.Client], upstream: Recorder
) -> None:
    client = gateway(upstream={"breaker": {"failures": 1, "reset_seconds": 0.1}, "timeout": {"first_byte_seconds": 3}})
    upstream.delay_seconds = 60
    assert client.post("/v1/chat/completions", json=HELLO).status_code == 504
    eventually(lambda: client.get("/readyz").status_code == 200)
    upstream.reset()
    upstream.delay_seconds = 60
    with asking(client, HELLO):
        eventually(lambda: upstream.bodies)
        assert samples(client.get("/metrics").text)["hhh_upstream_breaker_state"] == 1
    assert upstream.gone.wait(20)
    upstream.delay_seconds = 0
    eventually(lambda: client.post("/v1/chat/completions", json=HELLO).status_code == 200)
    assert samples(client.get("/metrics").text)["hhh_upstream_breaker_state"] == 0


async def test_attended_work_has_let_go_before_the_client_counts_as_gone() -> None:
    order: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            order.append("let go")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await attended(receive, work())
    assert order == ["let go"]


async def test_attended_work_that_ends_is_what_counts() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def fail() -> None:
        raise KeyError("x")

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    forever: Callable[[], Any] = asyncio.Event().wait
    assert await attended(forever, asyncio.sleep(0, "done")) == "done"
    assert await attended(forever, anext(numbers(), None)) == 1
    with pytest.raises(KeyError):
        await attended(forever, fail())
    assert await attended(receive, asyncio.sleep(0, "both")) == "both"


async def test_attended_work_ends_with_the_request() -> None:
    """As when the server shuts down and waits no longer."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(attended(asyncio.Event().wait, work()))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
