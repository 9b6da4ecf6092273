"""The audit trail through the front door: what is on record before a reply is read, and what is said of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from gateway.app import create_app
from gateway.config import load
from gateway.errors import ConfigError
from gateway.probes.runner import StandIn
from gateway.record.audit.recorder import Recorder
from tests.conftest import QUIET
from tests.fakes import Recorder as Model
from tests.fakes import Words, completion, eventually, samples, spoken
from tests.gateway.http.conftest import chat, check_error

Gateway = Callable[..., httpx.Client]


@pytest.fixture
def audited(tmp_path: Path, gateway: Gateway) -> Callable[..., tuple[httpx.Client, Path]]:
    """A gateway that records, and its database."""
    path = tmp_path / "audit.db"

    def start(**audit: Any) -> tuple[httpx.Client, Path]:
        url = f"sqlite+aiosqlite:///{path}"
        return gateway(audit={"url": url, "batch_seconds": 0.1, **audit}), path

    return start


def rows(path: Path, table: str = "decisions") -> list[dict[str, Any]]:
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]


def ask(client: httpx.Client, text: str, id: str = "", **fields: Any) -> httpx.Response:
    headers = {"x-request-id": id} if id else {}
    return client.post("/v1/chat/completions", json=chat(text, **fields), headers=headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("on_block", ["completion", "error"])
def test_a_refusal_is_on_record_when_it_is_read(
    audited: Callable[..., tuple[httpx.Client, Path]], stream: bool, on_block: str
) -> None:
    client, path = audited(batch_seconds=60)
    request = client.build_request(
        "POST",
        "/v1/chat/completions",
        json=chat("MARK-HARM now", stream=stream),
        headers={"x-request-id": "r1", "x-guardrail-on-block": on_block},
    )
    reply = client.send(request, stream=True)
    [row] = rows(path)  # at the head of the reply, before any of its body is read
    reply.read()
    assert reply.headers["x-guardrail-decision"] == "block"
    assert (row["request_id"], row["decision"], row["category"]) == ("r1", "block", "harmful.fraud")
    assert (row["route"], row["stage"], row["rail"], row["source"]) == ("refuse", "triage", "triage", "triage")
    assert (row["policy"], row["tier"], row["endpoint"]) == ("finance", "words", "chat_completions")
    assert row["policy_version"].startswith("sha256:")
    assert json.loads(row["scores"])["harmful"] == 0.95
    assert len(row["sha256"]) == 64
    assert len(row["weights"]) == 12
    assert row["text"] is None
    assert row["stream"] == stream
    assert rows(path) == [row]  # once


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_is_blocked_is_on_record_first(
    audited: Callable[..., tuple[httpx.Client, Path]], upstream: Model, stream: bool
) -> None:
    client, path = audited(batch_seconds=60)
    key = "sk-" + "a" * 40
    upstream.reply = completion(f"Here: {key}")
    upstream.chunks = spoken("Fine. Here is a long and harmless sentence to begin with, and more of it. ", f"{key} ")
    reply = ask(client, "What is the key?", "r2", stream=stream)
    assert key not in reply.text
    [row] = rows(path)
    assert (row["decision"], row["stage"], row["source"]) == ("block", "output", "output_rail")
    assert row["upstream_ms"] > 0


def test_no_refusal_leaves_before_its_record(
    audited: Callable[..., tuple[httpx.Client, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order, seen from inside: when the store is slow, so is the refusal, and nothing else."""
    client, path = audited()
    order: list[str] = []
    keep = Recorder.keep

    async def slow(self: Recorder, entry: Any) -> None:
        await keep(self, entry)
        order.append(f"kept {len(rows(path))}")

    monkeypatch.setattr(Recorder, "keep", slow)
    for stream in (False, True):
        ask(client, "MARK-HARM", stream=stream)
        order.append("read")
    assert order == ["kept 1", "read", "kept 2", "read"]


def test_what_was_not_refused_follows(audited: Callable[..., tuple[httpx.Client, Path]], upstream: Model) -> None:
    client, path = audited(text="full")
    ask(client, "What is a bond?", "a")
    ask(client, "MARK-ADVICE please", "b", stream=True)
    upstream.reply = completion("I'm sorry, but I can't help with that request.")
    ask(client, "Tell me more", "c")
    upstream.status = 500
    ask(client, "What is a share?", "d")
    found = {row["request_id"]: row for row in eventually(lambda: len(rows(path)) == 4 and rows(path))}
    assert {id: row["decision"] for id, row in found.items()} == {
        "a": "allow", "b": "advise", "c": "allow", "d": "error",
    }  # fmt: skip
    assert found["a"]["text"] == "What is a bond?"
    assert found["b"]["category"] == "regulated_advice.investment"
    assert found["c"]["source"] == "model"
    assert found["d"]["error"] == "UpstreamRejected"
    counted = samples(client.get("/metrics").text)
    assert counted['hhh_audit_records_total{result="written"}'] == 4
    assert counted["hhh_audit_up"] == 1


def test_what_never_became_a_decision_is_no_record(audited: Callable[..., tuple[httpx.Client, Path]]) -> None:
    client, path = audited()
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400
    ask(client, "MARK-HARM")
    assert len(rows(path)) == 1


def test_of_a_long_text_the_beginning_is_kept(audited: Callable[..., tuple[httpx.Client, Path]]) -> None:
    client, path = audited(text="full", text_characters=12)
    ask(client, "MARK-HARM and much more")
    assert rows(path)[0]["text"] == "MARK-HARM an"


def test_only_the_new_text_is_kept(audited: Callable[..., tuple[httpx.Client, Path]]) -> None:
    client, path = audited(text="full")
    messages = [
        {"role": "user", "content": "earlier"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "MARK-HARM new"},
    ]
    client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert [row["text"] for row in rows(path)] == ["MARK-HARM new"]


@pytest.mark.parametrize("stream", [False, True])
def test_no_record_no_reply(audited: Callable[..., tuple[httpx.Client, Path]], upstream: Model, stream: bool) -> None:
    client, path = audited(on_failure="refuse", timeout_seconds=0.5)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE decisions")
    refused = ask(client, "MARK-HARM", stream=stream)
    check_error(refused, 503, "audit_failed", upstream)
    asked = len(upstream.bodies)
    check_error(ask(client, "What is a bond?", stream=stream), 503, "audit_failed", upstream)
    assert len(upstream.bodies) == asked  # and the model was not asked
    assert client.get("/readyz").text == "audit store not ready\n"


def test_no_record_and_a_reply_all_the_same(audited: Callable[..., tuple[httpx.Client, Path]]) -> None:
    client, path = audited(timeout_seconds=0.5)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE decisions")
    assert ask(client, "MARK-HARM").headers["x-guardrail-decision"] == "block"
    assert ask(client, "What is a bond?").status_code == 200
    counted = samples(client.get("/metrics").text)
    assert counted["hhh_audit_failures_total"] >= 1
    assert client.get("/readyz").status_code == 200


def test_feedback(audited: Callable[..., tuple[httpx.Client, Path]]) -> None:
    client, path = audited()
    ask(client, "MARK-HARM", "r1")
    ask(client, "What is a bond?", "r2")
    said = client.post("/v1/feedback", json={"request_id": "r1", "verdict": "wrong_refusal", "note": " a joke "})
    assert said.status_code == 200
    assert said.json() == {
        "object": "feedback", "request_id": "r1", "verdict": "wrong_refusal", "decision": "block",
        "category": "harmful.fraud",
    }  # fmt: skip
    missed = {"request_id": "r2", "verdict": "missed_harm", "category": "harmful.fraud"}  # not yet in a batch
    assert client.post("/v1/feedback", json=missed).json()["decision"] == "allow"
    assert client.post("/v1/feedback", json={"request_id": "r2", "verdict": "correct"}).status_code == 200
    assert [(row["verdict"], row["note"], row["category"]) for row in rows(path, "feedback")] == [
        ("wrong_refusal", "a joke", ""),
        ("missed_harm", "", "harmful.fraud"),
        ("correct", "", ""),
    ]
    counted = samples(client.get("/metrics").text)
    assert {
        counted[f'hhh_feedback_total{{verdict="{name}"}}'] for name in ("wrong_refusal", "missed_harm", "correct")
    } == {1}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_required_parameter", "request_id"),
        ({"request_id": 7, "verdict": "correct"}, 400, "invalid_type", "request_id"),
        ({"request_id": "r1"}, 400, "invalid_value", "verdict"),
        ({"request_id": "r1", "verdict": "nonsense"}, 400, "invalid_value", "verdict"),
        ({"request_id": "r1", "verdict": "correct", "note": "x" * 2001}, 400, "invalid_value", "note"),
        ({"request_id": "r1", "verdict": "correct", "category": "nonsense"}, 400, "invalid_value", "category"),
        ({"request_id": "r1", "verdict": "missed_harm"}, 400, "contradicts_decision", "verdict"),
        ({"request_id": "nobody", "verdict": "correct"}, 404, "request_not_found", "request_id"),
        ([], 400, "invalid_json", None),
    ],
)
def test_bad_feedback(
    audited: Callable[..., tuple[httpx.Client, Path]],
    upstream: Model,
    body: Any,
    status: int,
    code: str,
    param: str | None,
) -> None:
    client, _ = audited()
    ask(client, "MARK-HARM", "r1")
    found = client.post("/v1/feedback", json=body)
    check_error(found, status, code, upstream)
    assert found.json()["error"]["param"] == param
    assert 'hhh_feedback_total{verdict="correct"} 0.0' in client.get("/metrics").text


def test_feedback_without_records(gateway: Gateway, upstream: Model) -> None:
    found = gateway().post("/v1/feedback", json={"request_id": "r1", "verdict": "correct"})
    check_error(found, 404, "audit_off", upstream)


def test_feedback_while_the_database_is_away(
    audited: Callable[..., tuple[httpx.Client, Path]], upstream: Model
) -> None:
    client, path = audited()
    ask(client, "MARK-HARM", "r1")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE decisions")
    check_error(
        client.post("/v1/feedback", json={"request_id": "r1", "verdict": "correct"}), 503, "audit_failed", upstream
    )


def test_feedback_needs_a_key(
    audited: Callable[..., tuple[httpx.Client, Path]], tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", "k1")
    client = gateway(client_keys_env="KEYS", audit={"url": f"sqlite+aiosqlite:///{tmp_path}/a.db"})
    for path in ("/v1/feedback", "/v1/probes"):
        assert client.post(path, json={"request_id": "r1", "verdict": "correct"}).status_code == 401


def test_probes_through_the_running_gateway(audited: Callable[..., tuple[httpx.Client, Path]], upstream: Model) -> None:
    """The classifier here knows marker words only, so that all probes are answered: the harmful ones are missed."""
    client, path = audited()
    before = samples(client.get("/metrics").text)
    run = client.post("/v1/probes").json()
    assert run["matrix"]["harmful"]["answered"] == run["matrix"]["harmful"]["refused"] + 44
    assert run["wrong_refusal_share"] == 0
    assert upstream.bodies == []
    after = samples(client.get("/metrics").text)
    assert after['hhh_probe_results_total{expected="refused",observed="answered",suite="harmful"}'] == 44
    assert after["hhh_probe_last_run_timestamp_seconds"] > 1e9
    moved = {name for name in after if after[name] != before.get(name)}
    assert all(name.startswith(("hhh_probe_", "hhh_inflight")) for name in moved), moved
    assert len(rows(path, "probe_results")) == len(run["results"]) >= 160
    assert rows(path) == []


async def test_a_newer_database_is_left_alone(tmp_path: Path, rails: Path) -> None:
    path = tmp_path / "audit.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO schema_version VALUES (99)")
    config = load(None, rails_dir=rails, **{**QUIET, "audit": {"url": f"sqlite+aiosqlite:///{path}"}})
    app = create_app(config, upstream=StandIn(), classifier=Words())
    with pytest.raises(ConfigError, match=r"audit.url: the database has schema 99"):
        async with app.router.lifespan_context(app):
            pass
    assert app.state.service.failure is not None
