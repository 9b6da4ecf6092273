"""The data path: what is called when, what a break does to a request, and what is counted of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from gateway.call import Call, Chunk, Completion
from gateway.errors import RailFailed, UpstreamTimeout
from gateway.pipeline import Pipeline
from gateway.record.metrics import Metrics
from tests.conftest import ROOT
from tests.fakes import Recorder, completion, spoken
from tests.gateway.guard.parts import FakeLane, chat, chunks, guard, observation, sample


class Model:
    """An upstream that keeps what it was asked."""

    def __init__(self, reply: dict[str, Any] | None = None, error: Exception | None = None) -> None:
        self.asked: list[Call] = []
        self.closed = 0
        self._reply = reply or completion()
        self._error = error

    async def complete(self, chat: Call) -> Completion:
        self.asked.append(chat)
        if self._error:
            raise self._error
        return Completion(self._reply)

    async def stream(self, chat: Call) -> AsyncGenerator[Chunk, None]:
        self.asked.append(chat)
        try:
            for chunk in chunks(*spoken("One. ", "Two. ")):
                yield chunk
            if self._error:
                raise self._error
        finally:
            self.closed += 1


def pipeline(model: Model, fast: FakeLane | None = None, **rules: Any) -> Pipeline:
    return Pipeline(guard(fast, **rules), model)  # type: ignore[arg-type]


def answer(path: Pipeline, request: Call, **options: Any) -> Completion:
    return asyncio.run(path.answer(request, options.get("seen") or observation()))


def stream(path: Pipeline, request: Call, **options: Any) -> list[Chunk]:
    async def run() -> list[Chunk]:
        return [chunk async for chunk in path.stream(request, options.get("seen") or observation())]

    return asyncio.run(run())


def test_allowed() -> None:
    model = Model()
    request = chat("Hello")
    assert answer(pipeline(model), request).body is model._reply
    assert model.asked[0].payload() is request.raw
    assert [chunk.body for chunk in stream(pipeline(model), request)] == spoken("One. ", "Two. ")
    assert model.closed == 1


@pytest.mark.parametrize("lane", [FakeLane(), FakeLane(forbidden=("MARK-HARM",))])
def test_the_model_is_not_called_for_what_is_blocked(lane: FakeLane) -> None:
    model = Model()
    request = chat("MARK-HARM", n=2)
    found = answer(pipeline(model, lane), request).body
    assert [choice["finish_reason"] for choice in found["choices"]] == ["content_filter"] * 2
    streamed = stream(pipeline(model, lane), request)
    assert [chunk.body["choices"][0]["index"] for chunk in streamed] == [0, 0, 0, 1, 1, 1]
    assert model.asked == []


def test_rewrites_and_guidance_reach_the_model() -> None:
    model = Model()
    rules = {"guidance": {"regulated_advice": "Be general."}}
    answer(pipeline(model, FakeLane(masked=("secret",)), **rules), chat("MARK-ADVICE secret"))
    assert [message["content"] for message in model.asked[0].body["messages"]] == ["Be general.", "MARK-ADVICE ***"]
    assert model.asked[0].route == "advise"


@pytest.mark.parametrize("error", [UpstreamTimeout("late"), RuntimeError("odd")])
def test_the_upstreams_failure_is_its_own(error: Exception) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)):
        answer(pipeline(Model(error=error)), chat("Hello"), seen=observation(metrics))
    with pytest.raises(type(error)):
        stream(pipeline(Model(error=error)), chat("Hello"), seen=observation(metrics))
    assert "hhh_rail_errors_total{" not in metrics.expose().decode()


def test_a_broken_rail_stops_the_model_from_being_asked() -> None:
    model = Model()
    for run in (answer, stream):
        with pytest.raises(RailFailed):
            run(pipeline(model, FakeLane(broken=("Hello",))), chat("Hello"))
    assert model.asked == []


def test_leaving_closes_the_upstream() -> None:
    model = Model()

    async def run() -> None:
        found = pipeline(model).stream(chat("Hello"), observation())
        await anext(found)
        await found.aclose()

    asyncio.run(run())
    assert model.closed == 1


@pytest.mark.parametrize(
    ("text", "reply", "counted"),
    [
        ("MARK-HARM MARK-TOXIC", "x", {"source": "triage", "category": "harmful.fraud"}),
        ("IN", "OUT", {"source": "input_rail", "category": "rail"}),
        ("hello", "OUT", {"source": "output_rail", "category": "rail"}),
        ("hello", "I won't.", {"source": "model", "category": "none"}),
        ("hello", "I won't OUT.", {"source": "output_rail", "category": "rail"}),
    ],
)
def test_each_refusal_is_counted_once(text: str, reply: str, counted: dict[str, str]) -> None:
    metrics = Metrics()
    path = pipeline(Model(completion(reply)), FakeLane(forbidden=("IN", "OUT")), toxicity={"input": 0.5})
    answer(path, chat(text), seen=observation(metrics))
    assert sample(metrics, "refusals_total", policy="test", **counted) == 1
    lines = [line for line in metrics.expose().decode().splitlines() if line.startswith("hhh_refusals_total{")]
    assert [float(line.split()[-1]) for line in lines] == [1.0]


# A flow that fails inside NeMo: a label is no number.
FAILING = """
define subflow fail on input
  if "BREAK-IN" in $user_message
    if $triage_label > 3
      stop

define subflow fail on output
  if "BREAK-OUT" in $bot_message
    if $triage_label > 3
      stop
"""


@pytest.fixture
def broken(tmp_path: Path, gateway: Callable[..., httpx.Client]) -> Callable[[str], httpx.Client]:
    """A gateway whose policy's flows fail, by fail mode."""

    def start(policy: str) -> httpx.Client:
        folder = tmp_path / "broken"
        folder.mkdir()
        flows = "rails: {input: {flows: [fail on input]}, output: {flows: [fail on output]}}"
        (folder / "config.yml").write_text(flows)
        (folder / "flows.co").write_text(FAILING)
        (folder / "policy.yml").write_text(f"colang_routes: [allow]\n{policy}")
        return gateway(rails_dir=tmp_path, policy="broken")

    return start


def ask(client: httpx.Client, text: str, **fields: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    return client.post("/v1/chat/completions", json=body)


def errors(client: httpx.Client, rail: str, mode: str) -> float:
    found = re.search(
        rf'hhh_rail_errors_total{{error="Exception",fail_mode="{mode}",rail="{rail}"}} (\S+)',
        client.get("/metrics").text,
    )
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("stream", [False, True])
def test_broken_rails_fail_closed(broken: Callable[[str], httpx.Client], upstream: Recorder, stream: bool) -> None:
    client = broken("")
    refused = ask(client, "BREAK-IN", stream=stream)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "guardrail_failed"
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-guardrail-decision"] == "error"
    assert upstream.bodies == []
    assert errors(client, "fail on input", "closed") == 1
    upstream.reply = completion("BREAK-OUT")
    upstream.chunks = spoken("BREAK-OUT")
    failed = ask(client, "fine", stream=stream)
    assert "BREAK-OUT" not in failed.text
    assert "can't" not in failed.text
    assert errors(client, "fail on output", "closed") == 1
    if stream:
        assert json.loads(failed.text.split("data: ")[-1])["error"]["code"] == "guardrail_failed"
    else:
        assert failed.status_code == 503
    assert "hhh_refusals_total{" in client.get("/metrics").text
    assert refusals(client) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["fail_modes: {default: open}", "mode: shadow"])
def test_broken_rails_let_through(
    broken: Callable[[str], httpx.Client], upstream: Recorder, policy: str, stream: bool
) -> None:
    client = broken(policy)
    upstream.reply = completion("BREAK-OUT")
    upstream.chunks = spoken("BREAK-OUT")
    passed = ask(client, "BREAK-IN", stream=stream)
    assert passed.status_code == 200
    assert "BREAK-OUT" in passed.text
    assert passed.headers["x-guardrail-decision"] == "allow"
    assert errors(client, "fail on input", "open") == 1
    assert errors(client, "fail on output", "open") == 1
    assert refusals(client) == 0


def test_fail_mode_of_one_rail(broken: Callable[[str], httpx.Client], upstream: Recorder) -> None:
    client = broken("fail_modes: {fail on input: open}")
    upstream.reply = completion("BREAK-OUT")
    assert ask(client, "BREAK-IN").status_code == 503
    assert errors(client, "fail on input", "open") == 1
    assert errors(client, "fail on output", "closed") == 1


def refusals(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("hhh_refusals_total{"))


def test_nothing_of_a_user_becomes_a_label(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(rails_dir=ROOT / "rails")
    before = set(re.findall(r"^hhh_\w+{.*}", client.get("/metrics").text, re.M))
    for text in ("MARK-HARM", "MARK-UNSURE", "MARK-ADVICE", "MARK-CRASH", "fine"):
        body = {
            "model": "USER-MODEL", "user": "USER-NAME", "metadata": {"USER-KEY": "USER-VALUE"}, "n": 1,
            "messages": [{"role": "user", "name": "USER-NICK", "content": f"{text} USER-TEXT"}],
            "tools": [{"type": "function", "function": {"name": "USER-TOOL"}}],
        }  # fmt: skip
        headers = {"x-request-id": "USER-REQUEST", "x-guardrail-on-block": "USER-BLOCK", "user-agent": "USER-AGENT"}
        client.post("/v1/chat/completions", json=body, headers=headers)
        client.post("/v1/chat/completions", json=body)
    upstream.reply = completion("x", model="USER-MODEL", choices=[{"finish_reason": "USER-REASON", "message": {}}])
    ask(client, "fine", model="USER-MODEL")
    exposed = client.get("/metrics").text
    assert "USER" not in exposed
    after = set(re.findall(r"^hhh_\w+{.*}", exposed, re.M))
    new = {series for series in after - before if "_bucket" not in series}
    known = ("hhh_rail_decisions_total{", "hhh_rail_errors_total{", "hhh_triage_total{")
    assert all(series.startswith(known) for series in new), new
