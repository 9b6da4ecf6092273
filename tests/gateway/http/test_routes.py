"""The small endpoints, request ids, and metrics that say exactly what happened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.fakes import Recorder, Wire, completion, eventually, http, samples, spoken
from tests.gateway.http.conftest import HELLO, Front, chat, check_error


def test_livez(front: Front) -> None:
    response = front.client.get("/livez")
    assert (response.status_code, response.text) == (200, "ok\n")


def test_readyz(front: Front) -> None:
    response = front.client.get("/readyz")
    assert (response.status_code, response.text) == (200, "ready\n")
    verbose = front.client.get("/readyz?verbose")
    assert verbose.status_code == 200
    assert verbose.json().keys() == {"state", "policy", "policies", "upstream", "keys"}
    assert verbose.json()["state"] == "ready"
    assert verbose.json()["policy"].startswith("finance@sha256:")
    assert verbose.json()["upstream"] == "remote"


def test_models(front: Front) -> None:
    response = front.client.get("/v1/models")
    assert response.json() == {"object": "list", "data": [{"id": "up-model", "object": "model"}]}
    assert front.client.get("/v1/models/up-model").json() == {"id": "up-model", "object": "model"}
    message = check_error(front.client.get("/v1/models/none"), 404, "model_not_found", front.upstream)
    assert "`none`" in message
    assert front.client.get("/v1/models/org/none").status_code == 404
    assert front.client.get("/v1/models/" + "x" * 5000).status_code == 404


BROKEN = [
    (http(200, b"<html>"), "upstream_broken"),
    (http(200, b"[]"), "upstream_broken"),
    (http(401, b'{"error":{"message":"bad key sk-123"}}'), "upstream_rejected"),
    (b"", "upstream_unavailable"),
]


def test_models_of_a_broken_upstream(say: Callable[..., tuple[httpx.Client, Wire]]) -> None:
    for reply, code in BROKEN:
        client, wire = say(reply)
        for path in ("/v1/models", "/v1/models/m"):
            response = client.get(path)
            check_error(response, 502, code, wire)
            assert response.headers["x-request-id"]
            assert "sk-123" not in response.text


def test_odd_lists_of_models(say: Callable[..., tuple[httpx.Client, Wire]]) -> None:
    for body in (b"{}", b'{"data":null}', b'{"data":{}}', b'{"data":["m",null,{"object":"model"}]}'):
        client, _ = say(http(200, body))
        assert client.get("/v1/models").json()["object"] == "list"
        assert client.get("/v1/models/m").status_code == 404


@pytest.mark.parametrize("given", ["abc", "req_1.2:3-4", "0", "x" * 128])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_harmless_request_id_is_echoed(front: Front, given: str, path: str) -> None:
    response = front.client.request(
        "GET" if path == "/v1/models" else "POST", path, json=HELLO, headers={"x-request-id": given}
    )
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", [b"x" * 129, b"a b", b"a\tb", b'a"b', b"a;b", b"<b>", b"a\xe9", b"a\xc3\xa9", b"a,b", b"%0d%0ax: y", b""]
)
def test_other_request_ids_are_replaced(front: Front, given: bytes) -> None:
    """Sent as raw bytes, since a proper client would not send them."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\nx-request-id: "
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as raw:
        raw.sendall(head + given + b"\r\n\r\n")
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    lines = reply.partition(b"\r\n\r\n")[0].split(b"\r\n")
    found = [line for line in lines if line.startswith(b"x-request-id: ")]
    assert len(found) == 1
    assert found[0].startswith(b"x-request-id: req_")
    assert len(found[0]) == len("x-request-id: req_") + 32


def test_request_id_is_in_every_reply_of_the_chat_endpoint(front: Front) -> None:
    replies = [front.ask(HELLO), front.ask({**HELLO, "stream": True}), front.ask(chat("MARK-HARM")), front.ask(b"{")]
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 4
    for reply in replies:
        assert reply.headers["x-guardrail-policy"].startswith("finance@sha256:")
        assert float(reply.headers["x-guardrail-latency-ms"]) >= 0


def test_metrics_are_exactly_what_happened(
    gateway: Callable[..., httpx.Client], upstream: Recorder, rails: Path
) -> None:
    client = gateway(rails_dir=rails)

    def ask(text: str, **fields: object) -> httpx.Response:
        return client.post("/v1/chat/completions", json=chat(text, **fields))

    before = samples(client.get("/metrics").text)
    assert not any(value for name, value in before.items() if name.startswith(("hhh_requests", "hhh_refusals")))
    upstream.chunks = spoken("An index fund ", "follows an index.")
    ask("Hello")
    ask("Hello", stream=True)
    ask("MARK-ADVICE")
    ask("MARK-HARM")
    ask("MARK-HARM", stream=True)
    ask("MARK-INJECT")
    upstream.reply = completion("MARK-TOXIC reply.")
    ask("Hello")
    upstream.reply = completion("Filtered behind us.")
    upstream.reply["choices"][0]["finish_reason"] = "content_filter"
    ask("Hello")
    client.post("/v1/chat/completions", content=b"{")
    upstream.status = 500
    ask("Hello")
    client.get("/v1/nothing")
    client.get("/v1/models")
    assert len(upstream.bodies) == 6
    eventually(lambda: samples(client.get("/metrics").text)["hhh_inflight_requests"] == 0)
    after = samples(client.get("/metrics").text)

    def nonzero(family: str) -> dict[str, float]:
        return {name.removeprefix(family): value for name, value in after.items() if name.startswith(family) and value}

    assert nonzero("hhh_requests_total") == {
        f'{{endpoint="chat_completions",outcome="{outcome}",policy="finance"}}': count
        for outcome, count in (("allow", 3), ("advise", 1), ("block", 4), ("error", 2))
    }
    assert nonzero("hhh_refusals_total") == {
        '{category="harmful.fraud",policy="finance",source="triage"}': 2,
        '{category="prompt_injection.override",policy="finance",source="triage"}': 1,
        '{category="hate",policy="finance",source="output_rail"}': 1,
        '{category="none",policy="finance",source="upstream_filter"}': 1,
    }
    assert nonzero("hhh_triage_total") == {
        '{label="benign",route="allow",tier="words"}': 5,
        '{label="regulated_advice",route="advise",tier="words"}': 1,
        '{label="harmful",route="refuse",tier="words"}': 2,
        '{label="prompt_injection",route="refuse",tier="words"}': 1,
    }
    assert nonzero("hhh_tokens_total") == {'{type="prompt"}': 7 * 4, '{type="completion"}': 5 * 4}
    assert after['hhh_request_duration_seconds_count{endpoint="chat_completions"}'] == 10
    assert after['hhh_overhead_seconds_count{endpoint="chat_completions"}'] == 10
    assert after["hhh_upstream_duration_seconds_count"] == 6
    assert after["hhh_time_to_first_token_seconds_count"] == 1
    assert after["hhh_upstream_breaker_state"] == 0
    assert not nonzero("hhh_rail_errors_total")
    assert not nonzero("hhh_would_refuse_total")
