"""Limits of keys, through the front door: 429 in OpenAI's shape, in the memory of one gateway, and in a real Redis."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import openai
import pytest

from gateway.config import Limits, load
from gateway.errors import ConfigError
from gateway.quota import storage
from gateway.quota.limiter import duration
from gateway.quota.window import Window
from tests.fakes import Recorder, chunk, completion, eventually, samples, spoken
from tests.gateway.http.conftest import HELLO, chat, check_error
from tests.gateway.http.test_keys import Issued, ask, issued
from tests.gateway.test_server import free_port

__all__ = ["issued"]
Start = Callable[..., httpx.Client]


class Redis:
    """A server of its own, with nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.process = subprocess.Popen([*command, str(self._folder)], stdout=subprocess.DEVNULL)

        def answers() -> bool:
            done = subprocess.run(
                ["redis-cli", "-p", str(self.port), "ping"], capture_output=True, text=True, check=False
            )
            return done.stdout == "PONG\n"

        eventually(answers)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    yield server
    server.kill()


def set_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    monkeypatch.setattr("gateway.quota.window.time", SimpleNamespace(time=now))


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute does not end while the test runs."""
    began = time.time()
    set_clock(monkeypatch, lambda: began)


def limited(response: httpx.Response, kind: str) -> dict[str, str]:
    """A 429 in OpenAI's shape; its headers."""
    check_error(response, 429, "rate_limit_exceeded", None)
    assert response.json()["error"]["type"] == kind
    assert 1 <= int(response.headers["retry-after"]) <= 120
    assert int(response.headers["retry-after-ms"]) / 1000 <= int(response.headers["retry-after"])
    return dict(response.headers)


@pytest.mark.usefixtures("one_minute")
def test_requests_per_minute(issued: Issued, gateway: Start, upstream: Recorder) -> None:
    """Those that are refused by the guard count, those over the limit do not, and another key has its own."""
    app, other = issued.add("app", requests_per_minute=3), issued.add("other", requests_per_minute=1)
    free = issued.add("free")
    client = gateway(keys_file=issued.path)
    assert samples(client.get("/metrics").text)['hhh_limited_requests_total{key_name="app",limit="requests"}'] == 0
    upstream.headers = {"x-ratelimit-remaining-requests": "77"}
    for left, body in ((2, HELLO), (1, chat("MARK-HARM")), (0, {**HELLO, "stream": True})):
        reply = ask(client, app, body)
        assert reply.status_code == 200
        assert reply.headers["x-ratelimit-limit-requests"] == "3"
        assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
        assert reply.headers["x-ratelimit-reset-requests"]
    for _ in range(3):
        headers = limited(ask(client, app), "requests")
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-guardrail-decision"] == "error"
    assert ask(client, other).status_code == 200
    assert ask(client, free).headers["x-ratelimit-remaining-requests"] == "77"  # the model server's own
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=issued.secrets["app"], max_retries=0) as one:
        with pytest.raises(openai.RateLimitError) as error:
            one.chat.completions.create(**HELLO)
        assert error.value.code == "rate_limit_exceeded"
    assert client.get("/v1/models", headers=app).status_code == 200
    counted = samples(client.get("/metrics").text)
    assert counted['hhh_limited_requests_total{key_name="app",limit="requests"}'] == 4
    assert counted['hhh_limited_requests_total{key_name="other",limit="requests"}'] == 0


@pytest.mark.usefixtures("one_minute")
def test_tokens_per_minute(issued: Issued, gateway: Start, upstream: Recorder) -> None:
    """Estimated before, put right by what the model server says, or by the texts where it says nothing."""
    app = issued.add("app", tokens_per_minute=1_000)
    client = gateway(keys_file=issued.path)

    def left() -> int:
        reply = ask(client, app, chat("hi", max_tokens=1))
        assert reply.status_code == 200, reply.text
        return int(reply.headers["x-ratelimit-remaining-tokens"])

    upstream.reply = completion(usage={"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200})
    assert left() == 999  # 1 is the estimate; 200 once it has ended
    assert left() == 799
    upstream.reply = completion(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    assert left() == 599
    assert ask(client, app, chat("hi", max_tokens=500)).headers["x-ratelimit-remaining-tokens"] == "100"
    assert left() == 599  # what was not used has come back
    assert ask(client, app, chat("MARK-HARM", max_tokens=500)).headers["x-guardrail-decision"] == "block"
    assert left() == 599  # the model was not asked
    upstream.chunks = spoken("x" * 200, "y" * 200)
    assert ask(client, app, {**chat("hi"), "stream": True}).text.endswith("[DONE]\n\n")
    eventually(lambda: left() == 498)  # 402 characters, and no usage; counted when the stream has ended
    upstream.chunks = [*spoken("hi"), chunk(None, usage={"prompt_tokens": 90, "completion_tokens": 8})]
    ask(client, app, {**chat("hi"), "stream": True})
    eventually(lambda: left() == 400)
    headers = limited(ask(client, app, chat("hi", max_tokens=500)), "tokens")
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert "Requested 500" in ask(client, app, chat("hi", max_tokens=500)).json()["error"]["message"]
    never = ask(client, app, chat("hi", max_tokens=1_001))
    check_error(never, 429, "rate_limit_exceeded", None)
    assert "retry-after" not in never.headers
    assert never.headers["x-should-retry"] == "false"


def test_requests_at_once(issued: Issued, gateway: Start, upstream: Recorder) -> None:
    """A slot is free again when its request ends, when its client leaves, and when a stream is over."""
    app = issued.add("app", concurrent=1)
    client = gateway(keys_file=issued.path)
    url, upstream.delay_seconds = str(client.base_url), 20.0
    for stream in (False, True):
        begun = len(upstream.bodies)
        leaving = threading.Thread(target=leave, args=[url, app, stream])
        leaving.start()
        eventually(lambda begun=begun: len(upstream.bodies) == begun + 1)
        limited(ask(client, app), "concurrent")
        leaving.join()
        upstream.delay_seconds = 0.0
        eventually(lambda: ask(client, app).status_code == 200)
        upstream.delay_seconds = 20.0
    upstream.delay_seconds = 0.0
    upstream.chunk_seconds = 0.3
    with client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}, headers=app) as reply:
        assert reply.status_code == 200
        limited(ask(client, app), "concurrent")
        reply.read()
    eventually(lambda: ask(client, app).status_code == 200)


def leave(url: str, headers: dict[str, str], stream: bool) -> None:
    """Ask, and go before the answer comes."""
    body = {**HELLO, "stream": stream}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=1.0, trust_env=False)


@pytest.mark.usefixtures("one_minute")
def test_two_gateways_share_a_redis(issued: Issued, gateway: Start, redis: Redis, upstream: Recorder) -> None:
    app = issued.add("app", requests_per_minute=10, tokens_per_minute=10_000)
    single = issued.add("single", concurrent=1)
    both = [gateway(keys_file=issued.path, limits={"storage": redis.url, "slot_seconds": 2}) for _ in range(2)]
    left = [int(ask(both[one % 2], app).headers["x-ratelimit-remaining-requests"]) for one in range(10)]
    assert left == list(range(9, -1, -1))
    for client in both:
        limited(ask(client, app), "requests")
        eventually(lambda client=client: ask(client, single).status_code == 200)  # used one after the other
    # Slots are shared, and those that are still held live longer than a lease.
    upstream.chunk_seconds = 1.2
    with both[0].stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}, headers=single) as reply:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            limited(ask(both[1], single), "concurrent")
            time.sleep(0.2)
        reply.read()
    upstream.chunk_seconds = 0
    eventually(lambda: ask(both[1], single).status_code == 200)


def test_slots_of_a_killed_process_come_back(redis: Redis) -> None:
    async def run() -> None:
        settings = Limits(storage=redis.url, slot_seconds=1)
        (stored, killed), (other_stored, other) = storage.build(settings), storage.build(settings)
        assert await killed.take("app", 1)
        assert await other.take("app", 1) is None
        began = time.monotonic()
        while not await other.take("app", 1):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert 0.8 < time.monotonic() - began < 2
        await storage.close(stored)
        await storage.close(other_stored)

    asyncio.run(run())


@pytest.mark.parametrize("on_failure", ["allow", "refuse"])
def test_redis_that_is_down(issued: Issued, gateway: Start, redis: Redis, on_failure: str) -> None:
    app, free = issued.add("app", requests_per_minute=2, concurrent=5), issued.add("free")
    limits = {"storage": redis.url, "on_failure": on_failure, "timeout_seconds": 0.3}
    client = gateway(keys_file=issued.path, limits=limits)
    assert ask(client, app).status_code == 200
    redis.process.send_signal(signal.SIGSTOP)  # it takes connections, and never answers
    for _ in range(5):
        began = time.monotonic()
        reply = ask(client, app)
        assert time.monotonic() - began < 2
        if on_failure == "allow":
            assert reply.status_code == 200
        else:
            check_error(reply, 503, "limits_failed", None)
    redis.process.send_signal(signal.SIGCONT)
    redis.kill()
    assert ask(client, app).status_code == (200 if on_failure == "allow" else 503)
    assert ask(client, free).status_code == 200
    assert samples(client.get("/metrics").text)["hhh_limit_failures_total"] >= 5
    redis.start()
    eventually(lambda: ask(client, app).status_code == 429)  # it counts again


def test_memory_and_redis_count_alike(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weighted minute, at chosen times; what is asked for after the promised wait is granted."""
    now = [6_000.0]
    set_clock(monkeypatch, lambda: now[0])

    async def run(settings: Limits) -> list[Any]:
        stored, _ = storage.build(settings)
        window, seen = Window(stored), []
        for at, cost in ((6_000, 60), (6_030, 40), (6_050, 1), (6_090, 51), (6_090, 50), (6_100, 30), (6_300, 100)):
            now[0] = float(at)
            share = await window.take("x", 100, cost)
            seen.append((share.granted, share.remaining, round(share.wait_seconds, 3)))
            if not share.granted:
                now[0] += share.wait_seconds + 0.01
                waited = await window.take("x", 100, cost)
                assert waited.granted
                await window.correct("x", waited, 0)
        await storage.close(stored)
        return seen

    found = asyncio.run(run(Limits()))
    assert found == asyncio.run(run(Limits(storage=redis.url)))
    assert found[:2] == [(True, 40, 0), (True, 0, 0)]
    assert found[2][0] is False
    assert found[-1] == (True, 0, 0)


def test_durations_as_openai_writes_them() -> None:
    assert [duration(seconds) for seconds in (0, 0.0201, 1, 6.04, 59.99, 60, 123)] == [
        "0ms", "21ms", "1s", "6.1s", "1m0s", "1m0s", "2m3s"
    ]  # fmt: skip


def test_settings_that_are_wrong(tmp_path: Path, no_settings: None) -> None:
    for wrong in ("memcached://x", "redis://:secret@host/0"):
        with pytest.raises(ConfigError, match=r"limits\.storage"):
            load(None, limits={"storage": wrong})


def test_a_variable_of_keys_may_be_missing_beside_a_file(tmp_path: Path, no_settings: None) -> None:
    """As in a chart that offers both."""
    with pytest.raises(ConfigError, match="NO_SUCH_KEYS"):
        load(None, client_keys_env="NO_SUCH_KEYS")
    assert load(None, client_keys_env="NO_SUCH_KEYS", keys_file=tmp_path / "keys.json", host="0.0.0.0").workers == 1
