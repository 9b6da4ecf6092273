"""A block on the wire, unary and streamed: a normal completion that says no, or an error for who asked for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.fakes import Recorder, chunk, completion, eventually, samples, spoken
from tests.gateway.http.conftest import Front, chat

HARM = "MARK-HARM"
WORDS = "I can't help with deceiving anyone for money."
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def events(response: httpx.Response) -> list[Any]:
    """The data of each event, parsed; `[DONE]` as a string."""
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def check_guardrails(guardrails: dict[str, Any], response: httpx.Response, stage: str, rail: str) -> None:
    assert guardrails.keys() == {
        "decision", "stage", "rail", "category", "reason", "policy", "request_id", "latency_ms"
    }  # fmt: skip
    assert guardrails["decision"] == "block"
    assert guardrails["stage"] == stage
    assert guardrails["rail"] == rail
    assert guardrails["request_id"] == response.headers["x-request-id"]
    assert guardrails["policy"]["name"] == "finance"
    assert guardrails["policy"]["version"].startswith("sha256:")
    assert guardrails["latency_ms"].keys() == {"total", "guard", "upstream"}
    assert all(isinstance(value, (int, float)) for value in guardrails["latency_ms"].values())


def check_headers(response: httpx.Response, stage: str, category: str) -> None:
    assert response.headers["x-guardrail-decision"] == "block"
    assert response.headers["x-guardrail-stage"] == stage
    assert response.headers["x-guardrail-category"] == category
    assert response.headers["x-guardrail-policy"].startswith("finance@sha256:")
    assert float(response.headers["x-guardrail-latency-ms"]) >= 0
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("n", [None, 1, 3])
def test_unary(front: Front, n: int | None) -> None:
    response = front.ask(chat(HARM, model="as-asked", **({} if n is None else {"n": n})))
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"id", "object", "created", "model", "choices", "usage", "guardrails"}
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert isinstance(body["created"], int)
    assert body["model"] == "as-asked"
    assert body["usage"] == ZERO
    assert [choice["index"] for choice in body["choices"]] == list(range(n or 1))
    for choice in body["choices"]:
        assert choice.keys() == {"index", "finish_reason", "logprobs", "message"}
        assert choice["finish_reason"] == "content_filter"
        assert choice["logprobs"] is None
        assert choice["message"].keys() == {"role", "content", "refusal"}
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"].startswith(WORDS)
        assert choice["message"]["refusal"] == choice["message"]["content"]
    check_guardrails(body["guardrails"], response, "triage", "triage")
    assert body["guardrails"]["category"] == "harmful.fraud"
    assert HARM not in response.text
    check_headers(response, "triage", "harmful.fraud")
    assert front.upstream.bodies == []


@pytest.mark.parametrize("usage", [None, False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_stream(front: Front, usage: bool | None, n: int) -> None:
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    response = front.ask(chat(HARM, model="as-asked", stream=True, n=n, **options))
    assert response.status_code == 200
    *chunks, done = events(response)
    assert done == "[DONE]"
    if usage:
        last = chunks.pop()
        assert last["choices"] == []
        assert last["usage"] == ZERO
        assert last["object"] == "chat.completion.chunk"
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in chunks}) == 1
    assert chunks[0]["model"] == "as-asked"
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all("error" not in one for one in chunks)
    for index in range(n):
        choices = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == index]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert choices[1]["delta"]["content"].startswith(WORDS)
        assert choices[1]["delta"]["refusal"] == choices[1]["delta"]["content"]
        assert [choice["finish_reason"] for choice in choices] == [None, None, "content_filter"]
        assert choices[2]["delta"] == {}
    ends = [one for one in chunks if one["choices"][0]["finish_reason"]]
    for end in ends:
        check_guardrails(end["guardrails"], response, "triage", "triage")
    check_headers(response, "triage", "harmful.fraud")
    assert front.upstream.bodies == []


@pytest.mark.parametrize("stream", [False, True])
def test_on_block_error(front: Front, stream: bool) -> None:
    response = front.ask(chat(HARM, stream=stream), x_guardrail_on_block="error")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "status", "innererror"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "prompt"
    assert error["code"] == "content_filter"
    assert error["status"] == 400
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert error["innererror"]["content_filter_result"] == {"harmful.fraud": {"filtered": True}}
    check_guardrails(response.json()["guardrails"], response, "triage", "triage")
    check_headers(response, "triage", "harmful.fraud")
    assert front.upstream.bodies == []


def test_on_block_completion_by_header_and_nonsense(front: Front) -> None:
    assert front.ask(chat(HARM), x_guardrail_on_block="completion").status_code == 200
    refused = front.ask(chat(HARM), x_guardrail_on_block="explode")
    assert refused.status_code == 400
    assert "x-guardrail-on-block" in refused.json()["error"]["message"]


def test_on_block_error_does_not_change_what_is_allowed(front: Front) -> None:
    assert front.ask(chat("Hello"), x_guardrail_on_block="error").json() == front.upstream.reply


@pytest.mark.parametrize(("style", "fields"), [("content", {"content"}), ("refusal", {"refusal"})])
def test_refusal_style_and_on_block_of_the_policy(
    gateway: Callable[..., httpx.Client], policy: Callable[..., Path], style: str, fields: set[str]
) -> None:
    rails = policy(refusal_style=style, on_block="error", refusals={"default": "No."})
    client = gateway(rails_dir=rails, policy="house")
    as_completion = {"x-guardrail-on-block": "completion"}
    unary = client.post("/v1/chat/completions", json=chat(HARM), headers=as_completion)
    message = unary.json()["choices"][0]["message"]
    assert {name for name in ("content", "refusal") if message[name] == "No."} == fields
    assert {name for name in ("content", "refusal") if message[name] is None} == {"content", "refusal"} - fields
    streamed = events(client.post("/v1/chat/completions", json=chat(HARM, stream=True), headers=as_completion))
    assert streamed[1]["choices"][0]["delta"] == dict.fromkeys(fields, "No.")
    assert client.post("/v1/chat/completions", json=chat(HARM)).status_code == 400


def test_blocked_reply_keeps_the_usage_and_the_other_choices(front: Front) -> None:
    good = completion()["choices"][0]
    bad = {**good, "index": 1, "message": {"role": "assistant", "content": "MARK-TOXIC words."}, "x": "secret"}
    front.upstream.reply = completion(choices=[good, bad], system_fingerprint="fp")
    response = front.ask(chat("Hello", n=2))
    body = response.json()
    assert response.status_code == 200
    assert "MARK-TOXIC" not in response.text
    assert "secret" not in response.text
    assert body["usage"] == front.upstream.reply["usage"]
    assert body["system_fingerprint"] == "fp"
    assert body["choices"][0] == good
    assert body["choices"][1]["index"] == 1
    assert body["choices"][1]["finish_reason"] == "content_filter"
    assert body["choices"][1]["message"]["content"] == body["choices"][1]["message"]["refusal"]
    check_guardrails(body["guardrails"], response, "output", "toxicity")
    assert response.headers["x-guardrail-stage"] == "output"
    assert response.headers["x-should-retry"] == "false"


def test_blocked_reply_without_usage_has_zeros(front: Front) -> None:
    front.upstream.reply = completion("MARK-TOXIC words.", usage=None)
    assert front.ask(chat("Hello")).json()["usage"] == ZERO
    del front.upstream.reply["usage"]
    assert front.ask(chat("Hello")).json()["usage"] == ZERO


def test_blocked_reply_as_error(front: Front) -> None:
    front.upstream.reply = completion("MARK-TOXIC words.")
    response = front.ask(chat("Hello"), x_guardrail_on_block="error")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_filter"
    assert "MARK-TOXIC" not in response.text


def test_blocked_tool_call(front: Front) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "mail", "arguments": '{"text": "MARK-TOXIC"}'}}
    front.upstream.reply = completion(None)
    front.upstream.reply["choices"][0]["message"]["tool_calls"] = [call]
    front.upstream.reply["choices"][0]["finish_reason"] = "tool_calls"
    response = front.ask(chat("Hello"))
    choice = response.json()["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "content_filter"
    assert response.headers["x-guardrail-stage"] == "tool"


@pytest.mark.parametrize("usage", [False, True])
def test_stream_blocked_in_the_middle(front: Front, usage: bool) -> None:
    safe = "An index fund follows an index. "
    counted = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    front.upstream.chunks = [*spoken(*[safe] * 8, "And now MARK-TOXIC", " words. "), chunk(None, usage=counted)]
    response = front.ask(chat("Hello", stream=True, stream_options={"include_usage": usage}))
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert "MARK-TOXIC" not in response.text
    if usage:
        assert chunks.pop()["usage"] == counted
    assert len({(one["id"], one["model"]) for one in chunks}) == 1
    end = chunks[-1]
    assert end["choices"][0]["finish_reason"] == "content_filter"
    check_guardrails(end["guardrails"], response, "output", "toxicity")
    said = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    released, _, refusal = said.partition("\n\n")
    assert released == safe * released.count(safe) != ""
    assert refusal.startswith("I won't write something that puts people down")


def test_blocked_stream_ends_the_call_upstream(
    gateway: Callable[..., httpx.Client], upstream: Recorder, rails: Path
) -> None:
    upstream.chunks = [*spoken("MARK-TOXIC words. " * 10), *[chunk({"content": "More. "})] * 500]
    upstream.chunk_seconds = 0.05
    client = gateway(rails_dir=rails)
    *_, done = events(client.post("/v1/chat/completions", json=chat("Hello", stream=True)))
    assert done == "[DONE]"
    assert upstream.gone.wait(20)
    assert upstream.sent_chunks < 100
    counted = eventually(lambda: samples(client.get("/metrics").text))
    assert counted['hhh_requests_total{endpoint="chat_completions",outcome="block",policy="finance"}'] == 1


def test_blocked_request_is_not_held_against_the_next(front: Front) -> None:
    history = [
        {"role": "user", "content": HARM},
        {"role": "assistant", "content": "I can't help with that."},
        {"role": "user", "content": "Then what is an index fund?"},
    ]
    response = front.ask({"model": "m", "messages": history})
    assert response.headers["x-guardrail-decision"] == "allow"
    assert response.json() == front.upstream.reply
