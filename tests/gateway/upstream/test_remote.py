"""The remote upstream by itself: connections, cookies, proxies, and errors whose bodies never end."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway import config
from gateway.call import Call
from gateway.errors import (
    ConfigError,
    UpstreamBroken,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.forms.chat import CHAT
from gateway.upstream.remote import Remote
from tests.fakes import Recorder, chunk, completion, spoken

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def asked(**fields: Any) -> Call:
    body = {**BODY, **fields}
    return Call(CHAT, body, json.dumps(body).encode(), "r")


@asynccontextmanager
async def remote(url: str, **settings: Any) -> AsyncIterator[Remote]:
    gauge = Gauge("state", "", registry=CollectorRegistry())
    found = Remote(config.Upstream(base_url=url, **{"retries": 0, **settings}), gauge)
    await found.start()
    try:
        yield found
    finally:
        await found.close()


async def streamed(found: Remote) -> list[Mapping[str, Any]]:
    async with aclosing(found.stream(asked(stream=True))) as chunks:
        return [chunk.body async for chunk in chunks]


class Slow:
    """A model server that sends `pieces` with a moment between them, and after `hold` of them no more."""

    def __init__(self, *pieces: bytes, status: int = 200, hold: int = 1000) -> None:
        self.pieces = pieces
        self.status = status
        self.hold = hold
        self.ports: list[int] = []
        self.gone = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await Recorder()(scope, receive, send)
            return
        self.ports.append(scope["client"][1])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for number, piece in enumerate(self.pieces):
            if number == self.hold:
                await receive()
                self.gone += 1
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def data(*bodies: Any) -> list[bytes]:
    return [b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies]


async def test_one_connection_carries_many_calls(upstream: Recorder) -> None:
    async with remote(upstream.url) as found:
        for _ in range(2):
            assert (await found.complete(asked())).raw == json.dumps(upstream.reply).encode()
            assert await streamed(found) == upstream.chunks
        upstream.status = 400
        for _ in range(2):
            with pytest.raises(UpstreamRejected):
                await found.complete(asked())
    assert len(upstream.ports) == 6
    assert len(set(upstream.ports)) == 1


async def test_connection_is_kept_when_the_end_comes_after_done(
    serve: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers send it: `[DONE]`, and the end of the body in a piece of its own."""
    monkeypatch.setattr("gateway.upstream.remote._END_SECONDS", 20)
    slow = Slow(*data(*spoken("Hello.")), b"data: [DONE]\n\n")
    async with remote(serve(slow).url) as found:
        for _ in range(3):
            assert len(await streamed(found)) == 3
    assert len(slow.ports) == 3
    assert len(set(slow.ports)) == 1


async def test_stream_is_over_at_done_even_if_the_server_holds_on(serve: Callable[[Any], Any]) -> None:
    slow = Slow(*data(*spoken("Hello.")), b"data: [DONE]\n\n", b"never sent", hold=4)
    running = serve(slow)
    async with remote(running.url) as found:
        began = time.monotonic()
        assert len(await streamed(found)) == 3
        assert time.monotonic() - began < 5
        async with asyncio.timeout(20):
            while not slow.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_stream_closed_early_closes_its_connection(serve: Callable[[Any], Any]) -> None:
    slow = Slow(*data(*spoken("Hello.")), b"never sent", hold=3)
    async with remote(serve(slow).url) as found:
        chunks = found.stream(asked(stream=True))
        await anext(chunks)
        await chunks.aclose()
        async with asyncio.timeout(20):
            while not slow.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_error_whose_body_never_ends(serve: Callable[[Any], Any]) -> None:
    slow = Slow(b'{"error":', b"never sent", status=500, hold=1)
    async with remote(serve(slow).url, timeout={"first_byte_seconds": 0.3}, breaker={"failures": 1}) as found:
        with pytest.raises(UpstreamRejected) as caught:
            await found.complete(asked())
        assert caught.value.status == 500
        assert caught.value.error is None
        assert await found.ready()  # whoever answers is alive


async def test_trial_cancelled_while_its_error_is_read_leaves_the_breaker_usable(serve: Callable[[Any], Any]) -> None:
    slow = Slow(b'{"error":', b"never sent", status=500, hold=1)
    async with remote(serve(slow).url, breaker={"failures": 1, "reset_seconds": 0.05}) as found:
        for count in (1, 2, 3):
            found._breaker.failed()
            assert not await found.ready()
            await asyncio.sleep(0.1)
            call = asyncio.create_task(found.complete(asked()))
            async with asyncio.timeout(20):
                while len(slow.ports) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_trial_that_fails_in_an_unknown_way_leaves_the_breaker_usable(
    upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with remote(upstream.url, breaker={"failures": 1, "reset_seconds": 0.01}) as found:
        found._breaker.failed()
        await asyncio.sleep(0.05)
        with monkeypatch.context() as patched:
            patched.setattr("aiohttp.ClientSession.request", lambda *args, **kwargs: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await found.complete(asked())
        upstream.status = 200
        await found.complete(asked())


async def test_cookies_are_not_kept(upstream: Recorder) -> None:
    """By name and not by number, since cookies of bare addresses are dropped anyway."""
    upstream.headers = {"set-cookie": "session=of-another-client; Path=/"}
    async with remote(upstream.url.replace("127.0.0.1", "localhost")) as found:
        await found.complete(asked())
        await found.complete(asked())
    assert len(upstream.requests) == 2
    assert all("cookie" not in request for request in upstream.requests)


async def test_proxies_of_the_environment_do_not_matter(upstream: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with remote(upstream.url) as found:
        assert found._session is not None
        assert found._session.trust_env is False
        await found.complete(asked())
        assert await found.models()


async def test_key(upstream: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-1")
    async with remote(upstream.url, api_key_env="UPSTREAM_KEY") as found:
        await found.complete(asked())
    assert upstream.requests[0]["authorization"] == "Bearer sk-1"
    monkeypatch.delenv("UPSTREAM_KEY")
    with pytest.raises(ConfigError, match="UPSTREAM_KEY"):
        async with remote(upstream.url, api_key_env="UPSTREAM_KEY"):
            pass


async def test_base_url_may_end_in_a_slash(upstream: Recorder) -> None:
    async with remote(f"{upstream.url}/") as found:
        await found.complete(asked())
    assert len(upstream.bodies) == 1


async def test_connecting_takes_too_long() -> None:
    """To a server that accepts no connection and has no room for another that waits."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        async with remote(url, timeout={"connect_seconds": 0.2, "first_byte_seconds": 20}) as found:
            with pytest.raises(UpstreamUnavailable, match="in time"):
                await found.complete(asked())


async def test_headers_and_then_nothing(serve: Callable[[Any], Any]) -> None:
    slow = Slow(b'{"choices":', b"never sent", hold=1)
    async with remote(serve(slow).url, timeout={"total_seconds": 0.3}) as found:
        with pytest.raises(UpstreamTimeout):
            await found.complete(asked())


async def test_line_that_is_too_long(upstream: Recorder) -> None:
    upstream.chunks = [chunk({"content": "x" * (9 * 1024 * 1024)})]
    async with remote(upstream.url) as found:
        with pytest.raises(UpstreamBroken, match="too long"):
            await streamed(found)


async def test_large_replies_pass(upstream: Recorder) -> None:
    upstream.reply = completion("x" * 3_000_000)
    upstream.chunks = spoken("x" * 3_000_000)
    async with remote(upstream.url) as found:
        assert (await found.complete(asked())).body == upstream.reply
        assert await streamed(found) == upstream.chunks


async def test_every_failure_is_an_upstream_error_that_names_no_address(upstream: Recorder) -> None:
    upstream.status = 503
    upstream.reply = b"\xff<html>"
    async with remote(upstream.url, breaker={"failures": 1}) as found:
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                await found.complete(asked())
            assert "127.0.0.1" not in caught.value.message
