"""The circuit breaker at the front door: no answer opens it, any answer closes it, and an error is an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.fakes import Recorder, Wire, eventually, http, samples
from tests.gateway.http.conftest import chat, check_error
from tests.gateway.http.test_failures import GOOD, Say, ask


@pytest.fixture
def behind(gateway: Callable[..., httpx.Client]) -> Iterator[Callable[..., tuple[httpx.Client, Wire]]]:
    """A gateway of its own, with the settings that are given for its upstream, in front of raw bytes."""
    wire = Wire(GOOD)

    def start(*replies: bytes | None, **settings: Any) -> tuple[httpx.Client, Wire]:
        wire.say(*replies)
        return gateway(upstream={"base_url": wire.url, **settings}), wire

    yield start
    wire.stop()


def breaker_state(client: httpx.Client) -> float:
    return samples(client.get("/metrics").text)["hhh_upstream_breaker_state"]


def test_breaker_opens_and_closes(behind: Say) -> None:
    client, wire = behind(b"", breaker={"failures": 3, "reset_seconds": 2.5})
    for _ in range(2):
        check_error(ask(client), 502, "upstream_unavailable", wire)
    assert breaker_state(client) == 0
    assert client.get("/readyz").status_code == 200
    assert "retry-after" not in ask(client).headers
    assert breaker_state(client) == 2
    assert len(wire.requests) == 3
    for stream in (False, True):
        response = ask(client, stream)
        check_error(response, 502, "upstream_unavailable", wire)
        assert 1 <= int(response.headers["retry-after"]) <= 3
    assert len(wire.requests) == 3
    ready = client.get("/readyz")
    assert (ready.status_code, ready.text) == (503, "upstream not ready\n")
    assert client.get("/readyz?verbose").json()["state"] == "upstream not ready"
    assert client.get("/livez").status_code == 200
    blocked = client.post("/v1/chat/completions", json=chat("MARK-HARM"))
    assert blocked.status_code == 200  # a refusal needs no model
    wire.say(GOOD)
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert ask(client).status_code == 200
    assert breaker_state(client) == 0
    assert ask(client).status_code == 200


@pytest.mark.parametrize("first", [b"", http(503, b"{}")], ids=["hangs up", "503"])
def test_retries_count_once(behind: Say, first: bytes) -> None:
    client, wire = behind(first, b"", b"", first, b"", b"", GOOD, retries=2, breaker={"failures": 3})
    for _ in range(2):
        check_error(ask(client), 502, "upstream_unavailable", wire)
    assert len(wire.requests) == 6
    assert ask(client).status_code == 200


def test_timeouts_open_the_breaker(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(upstream={"timeout": {"first_byte_seconds": 0.2}, "breaker": {"failures": 2}})
    upstream.delay_seconds = 30
    for _ in range(2):
        check_error(ask(client), 504, "upstream_timeout", upstream)
    check_error(ask(client), 502, "upstream_unavailable", upstream)


def test_answers_do_not_open_the_breaker(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(upstream={"breaker": {"failures": 1}})
    for status in (400, 401, 404, 429, 500, 502, 503, 504):
        upstream.status = status
        for stream in (False, True):
            ask(client, stream)
    assert breaker_state(client) == 0
    assert client.get("/readyz").status_code == 200
    upstream.status = 200
    assert ask(client).status_code == 200


def test_any_answer_closes_the_breaker(behind: Say) -> None:
    client, wire = behind(b"", breaker={"failures": 1, "reset_seconds": 0.5})
    check_error(ask(client), 502, "upstream_unavailable", wire)
    wire.say(http(500, b"{}"), GOOD)
    eventually(lambda: client.get("/readyz").status_code == 200)
    check_error(ask(client), 502, "upstream_rejected", wire)
    assert breaker_state(client) == 0
    assert ask(client).status_code == 200


def test_503_that_stays_at_default_settings(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(upstream={"retries": 2})
    upstream.status = 503
    upstream.headers = {"retry-after": "4"}
    for _ in range(4):
        response = ask(client)
        check_error(response, 502, "upstream_rejected", upstream)
        assert response.headers["retry-after"] == "4"
    assert len(upstream.bodies) == 12
    upstream.reset()
    assert ask(client).status_code == 200
