"""Every endpoint, streamed or not, blocks at every stage that it has; the table in docs/api.md is made from this."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app import create_app
from gateway.config import load
from gateway.http.routes import ROUTES
from tests.conftest import QUIET, ROOT, Running
from tests.endpoints import ENDPOINTS, Endpoint, table
from tests.fakes import Recorder, Words, samples
from tests.gateway.http.conftest import Front

BAD = "FORBIDDEN-PHRASE"
STAGES = {"triage": "triage", "input": "input_rail", "output": "output_rail", "tool": "tool_rail"}
CASES = [
    pytest.param(endpoint, stream, stage, id=f"{endpoint.path} {'stream' if stream else 'whole'} {stage}")
    for endpoint in ENDPOINTS
    for stream in endpoint.streams
    for stage in endpoint.stages
]


def _serve(folder: Path, rules: str) -> Iterator[Front]:
    """A gateway whose policy forbids one phrase both ways, by NeMo's regular expressions."""
    import httpx2 as httpx

    folder.mkdir(parents=True)
    patterns = {"patterns": [BAD]}
    rails = {
        "config": {"regex_detection": {"input": patterns, "output": patterns}},
        "input": {"flows": ["regex check input"]},
        "output": {"flows": ["regex check output"]},
    }
    (folder / "config.yml").write_text(yaml.safe_dump({"models": [], "rails": rails}))
    (folder / "policy.yml").write_text(rules)
    recorder = Recorder()
    behind = Running(recorder)
    recorder.url = f"{behind.url}/v1"
    settings = {**QUIET, "rails_dir": folder.parent, "upstream": {"base_url": recorder.url, "retries": 0}}
    running = Running(create_app(load(None, policy="house", **settings), None, Words()))
    with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        yield Front(client, recorder)
    running.stop()
    behind.stop()


@pytest.fixture(scope="module")
def _house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    yield from _serve(tmp_path_factory.mktemp("house") / "rails" / "house", "mode: enforce")


@pytest.fixture(scope="module")
def _shadowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    yield from _serve(tmp_path_factory.mktemp("shadowed") / "rails" / "house", "mode: shadow")


@pytest.fixture
def house(_house: Front) -> Front:
    _house.upstream.reset()
    return _house


@pytest.fixture
def shadowed(_shadowed: Front) -> Front:
    _shadowed.upstream.reset()
    return _shadowed


def _case(endpoint: Endpoint, stream: bool, stage: str, upstream: Recorder) -> dict[str, Any]:
    """A request that must be blocked at this stage, and the model's reply to it."""
    asked = {"triage": "Tell me MARK-HARM", "input": f"Tell me {BAD}"}.get(stage, "Tell me more")
    said = f"Well, {BAD} it is." if stage == "output" else "An index fund."
    arguments = f'{{"to": "{BAD}"}}' if stage == "tool" else ""
    if endpoint.replies is not None:
        upstream.reply, upstream.chunks = endpoint.replies(said, arguments)
        upstream.raw_reply = json.dumps(upstream.reply, indent=1).encode()
    return endpoint.request(asked, said, arguments, stream)


@pytest.mark.parametrize(("endpoint", "stream", "stage"), CASES)
def test_blocks(house: Front, endpoint: Endpoint, stream: bool, stage: str) -> None:
    upstream = house.upstream
    request = _case(endpoint, stream, stage, upstream)
    before = house.metrics()
    response = house.client.post(endpoint.path, json=request)
    found = endpoint.refusal(response, stream)
    assert found, response.text
    assert BAD not in response.text
    assert "MARK-HARM" not in response.text
    assert "FORBIDDEN" not in response.text
    if not stream or stage in ("triage", "input"):  # of a stream, what is known at its first byte
        assert response.headers["x-guardrail-decision"] == "block"
    assert len(upstream.bodies) == (1 if stage in ("output", "tool") and endpoint.replies is not None else 0)
    # Counted once, at the stage that decided.
    after = house.metrics()
    refused = {name: after[name] - before.get(name, 0) for name in after if name.startswith("hhh_refusals_total")}
    changed = {name: count for name, count in refused.items() if count}
    assert list(changed.values()) == [1]
    assert f'source="{STAGES[stage]}"' in next(iter(changed))
    ended = f'hhh_requests_total{{endpoint="{endpoint.label}",outcome="block",policy="house"}}'
    assert after[ended] == before.get(ended, 0) + 1


@pytest.mark.parametrize(("endpoint", "stream", "stage"), CASES)
def test_in_shadow_mode_nothing_is_changed_and_all_is_counted(
    shadowed: Front, endpoint: Endpoint, stream: bool, stage: str
) -> None:
    upstream = shadowed.upstream
    request = _case(endpoint, stream, stage, upstream)
    before = shadowed.metrics()
    response = shadowed.client.post(endpoint.path, json=request)
    assert response.status_code == 200, response.text
    assert not endpoint.refusal(response, stream), response.text
    if endpoint.replies is not None:
        assert json.loads(upstream.bodies[0]) == request
        assert response.content == (upstream.wire() if stream else upstream.raw_reply)
    if not stream or stage in ("triage", "input"):
        assert response.headers["x-guardrail-decision"] == "would_block"
    after = shadowed.metrics()
    found = {
        name: after[name] - before.get(name, 0) for name in after if "_refuse_total{" in name or "refusals" in name
    }
    changed = {name: count for name, count in found.items() if count}
    assert list(changed.values()) == [1]
    assert next(iter(changed)).startswith("hhh_would_refuse_total{")
    assert f'source="{STAGES[stage]}"' in next(iter(changed))


@pytest.mark.parametrize(("endpoint", "stream", "stage"), CASES)
def test_lets_the_rest_through(house: Front, endpoint: Endpoint, stream: bool, stage: str) -> None:
    """The same with nothing forbidden in it: byte for byte, where there is a model's reply."""
    upstream = house.upstream
    arguments = '{"to": "Ann"}' if stage == "tool" else ""
    if endpoint.replies is not None:
        upstream.reply, upstream.chunks = endpoint.replies("An index fund.", arguments)
        upstream.raw_reply = json.dumps(upstream.reply, indent=1).encode()
    sent = json.dumps(
        {**endpoint.request("Tell me more", "Fine.", arguments, stream), "x_unknown": [1.0, None]}, indent=2
    )
    response = house.client.post(endpoint.path, content=sent.encode())
    assert response.status_code == 200, response.text
    assert not endpoint.refusal(response, stream), response.text
    assert response.headers["x-guardrail-decision"] == "allow"
    if endpoint.replies is None:
        assert upstream.bodies == []
    else:
        assert upstream.bodies == [sent.encode()]
        assert response.content == (upstream.wire() if stream else upstream.raw_reply)


# Moderations only say what they find; feedback and probes are the operator's.
UNGUARDED = {"/v1/moderations", "/v1/feedback", "/v1/probes"}


def test_no_endpoint_is_missing() -> None:
    posted = {route.path for route in ROUTES if route.methods and "POST" in route.methods}
    assert posted == {endpoint.path for endpoint in ENDPOINTS} | UNGUARDED


def test_the_table_in_the_docs_is_this_one() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert table() in page, "run: python -m tests.endpoints"


def test_the_fixture_counts(house: Front) -> None:
    assert any(name.startswith("hhh_unchecked_content_total") for name in samples(house.client.get("/metrics").text))
