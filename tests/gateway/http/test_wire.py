"""What the other endpoints do on the wire: older completions, embeddings, moderations, verdicts, unchecked content."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.endpoints import events
from tests.fakes import Recorder, chunk, completion, eventually, samples, spoken
from tests.gateway.http.conftest import HELLO, Front, chat, check_error

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "f"}}


def text_body(*texts: str, **fields: Any) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"} for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "cmpl", "object": "text_completion", "created": 1, "model": "up", "choices": choices, "usage": usage}


def complete(front: Front, prompt: Any, **fields: Any) -> httpx.Response:
    return front.client.post("/v1/completions", json={"model": "m", "prompt": prompt, **fields})


def test_prompts_in_every_form_pass(front: Front) -> None:
    front.upstream.reply = text_body("Fine.")
    for prompt in ("Once", ["Once", "Twice"], [1, 2, 3], [[1, 2], [3]], None, ""):
        body = json.dumps({"model": "m", "prompt": prompt, "echo": True, "n": 2, "x": 1.0}).encode()
        assert front.client.post("/v1/completions", content=body).json() == front.upstream.reply
        assert front.upstream.bodies[-1] == body


@pytest.mark.parametrize("prompt", ["MARK-HARM", ["Once", "MARK-HARM"]])
@pytest.mark.parametrize("stream", [False, True])
def test_each_prompt_is_checked_and_each_choice_refused(front: Front, prompt: Any, stream: bool) -> None:
    response = complete(front, prompt, n=2, stream=stream)
    choices = [choice for body in (events(response) if stream else [response.json()]) for choice in body["choices"]]
    ended = [choice["index"] for choice in choices if choice["finish_reason"] == "content_filter"]
    assert ended == list(range(4 if isinstance(prompt, list) else 2))
    assert all("can't help" in choice["text"] for choice in choices if choice["text"])
    assert front.upstream.bodies == []
    assert complete(front, "Once", suffix="MARK-HARM").headers["x-guardrail-decision"] == "block"


def test_one_bad_completion_of_two(front: Front) -> None:
    front.upstream.reply = text_body("Fine.", "MARK-TOXIC words.")
    body = complete(front, "Once", n=2).json()
    assert body["choices"][0] == front.upstream.reply["choices"][0]
    assert body["choices"][1]["finish_reason"] == "content_filter"
    assert "TOXIC" not in json.dumps(body)


@pytest.mark.parametrize("prompt", [7, [], {}, [None], ["a", 1], [[1], "a"], [True]])
def test_invalid_prompts(front: Front, prompt: Any) -> None:
    response = complete(front, prompt)
    check_error(response, 400, response.json()["error"]["code"], front.upstream)
    front.client.post("/v1/embeddings", json={"model": "m", "input": prompt})
    assert front.upstream.bodies == []


def test_too_many_choices(front: Front) -> None:
    check_error(complete(front, ["a"] * 100, n=128), 413, "request_too_large", front.upstream)


def test_embeddings(front: Front) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": "AACAPw=="}]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    front.upstream.raw_reply = json.dumps({"object": "list", "data": data, "model": "up", "usage": usage}).encode()
    for given in ("Hello", ["Hello", "World"], [1, 2], [[1], [2]], ["Hello"] * 2000):
        body = json.dumps({"model": "m", "input": given, "encoding_format": "base64"}).encode()
        response = front.client.post("/v1/embeddings", content=body)
        assert response.content == front.upstream.raw_reply
        assert front.upstream.bodies[-1] == body
    front.upstream.bodies.clear()
    response = front.client.post("/v1/embeddings", json={"model": "m", "input": ["Hello", "MARK-HARM"]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_filter"
    assert response.headers["x-should-retry"] == "false"
    assert front.upstream.bodies == []
    check_error(
        front.client.post("/v1/embeddings", json={"model": "m"}), 400, "missing_required_parameter", front.upstream
    )


@pytest.mark.parametrize("given", ["MARK-HARM", ["Hello", "MARK-HARM"], [{"type": "text", "text": "MARK-HARM"}, IMAGE]])
def test_moderations(front: Front, given: Any) -> None:
    response = front.client.post("/v1/moderations", json={"input": given, "model": "omni-moderation-latest"})
    body = response.json()
    assert body["model"] == "omni-moderation-latest"
    assert body["id"].startswith("modr-")
    assert len(body["results"]) == (2 if given == ["Hello", "MARK-HARM"] else 1)
    bad = body["results"][-1]
    assert bad["flagged"] is True
    assert bad["categories"]["illicit"] is True
    assert bad["category_scores"]["illicit"] > 0.9
    assert len(bad["categories"]) == len(bad["category_scores"]) == len(bad["category_applied_input_types"]) == 13
    if len(body["results"]) == 2:
        assert body["results"][0]["flagged"] is False
    assert front.upstream.bodies == []


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": 7}, {"input": [7]}, {"input": [{"type": "text"}]}])
def test_moderations_of_nothing(front: Front, body: dict[str, Any]) -> None:
    response = front.client.post("/v1/moderations", json=body)
    check_error(response, 400, response.json()["error"]["code"], front.upstream)


def test_moderations_with_the_openai_client(front: Front) -> None:
    with openai.OpenAI(base_url=f"{front.client.base_url}/v1", api_key="any", max_retries=0) as client:
        (result,) = client.moderations.create(input="MARK-HARM").results
        assert result.flagged
        assert result.categories.illicit


def check(front: Front, *messages: dict[str, Any]) -> dict[str, Any]:
    response = front.client.post("/v1/guardrails/check", json={"messages": list(messages)})
    assert response.status_code == 200, response.text
    assert front.upstream.bodies == []
    return dict(response.json())


def test_guardrails_check(front: Front) -> None:
    user = {"role": "user", "content": "Hello"}
    assert check(front, user)["decision"] == "allow"
    bad = check(front, {"role": "user", "content": "MARK-HARM"})
    assert (bad["decision"], bad["stage"], bad["category"]) == ("block", "triage", "harmful.fraud")
    assert bad["refusal"]
    assert check(front, {"role": "user", "content": "MARK-ADVICE"})["decision"] == "advise"
    reply = check(front, user, {"role": "assistant", "content": "MARK-TOXIC words."})
    assert (reply["decision"], reply["stage"]) == ("block", "output")
    call = {"type": "function", "function": {"name": "f", "arguments": "MARK-TOXIC"}}
    assert check(front, user, {"role": "assistant", "content": None, "tool_calls": [call]})["stage"] == "tool"
    for body in ({}, {"messages": []}, {"messages": 7}, {"messages": [7]}):
        refused = front.client.post("/v1/guardrails/check", json=body)
        check_error(refused, 400, refused.json()["error"]["code"], front.upstream)


LITELLM = "/beta/litellm_basic_guardrail_api"


def test_litellm(front: Front) -> None:
    def ask(**body: Any) -> dict[str, Any]:
        response = front.client.post(LITELLM, json={"input_type": "request", "request_data": {}, **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    assert ask(texts=["Hello"]) == {"action": "NONE"}
    assert ask(texts=[], images=["x"], tools=None)["action"] == "NONE"
    assert ask(texts=["MARK-HARM"])["action"] == "BLOCKED"
    assert ask(texts=["MARK-HARM"])["blocked_reason"].startswith("I can't help")
    # With the messages, what was refused before is old.
    old = [{"role": "user", "content": "MARK-HARM"}, {"role": "assistant", "content": "No."}]
    new = {"role": "user", "content": "Hello"}
    assert ask(texts=["MARK-HARM", "No.", "Hello"], structured_messages=[*old, new])["action"] == "NONE"
    # What is in no message is new, wherever the messages end, and does not make the turn that is new an old one.
    begun = {"role": "assistant", "content": "Well, "}
    for messages in ([*old, new], [*old, new, begun], [new]):
        assert ask(texts=["Hello"], structured_messages=messages)["action"] == "NONE"
        assert ask(texts=["Hello", "MARK-HARM now"], structured_messages=messages)["action"] == "BLOCKED"
    bad = {"role": "user", "content": [{"type": "text", "text": "MARK-HARM"}]}
    assert ask(texts=["else"], structured_messages=[*old, bad, begun])["action"] == "BLOCKED"
    assert ask(texts=["Fine."], input_type="response")["action"] == "NONE"
    assert ask(texts=["Fine.", "MARK-TOXIC"], input_type="response")["action"] == "BLOCKED"
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "MARK-TOXIC"}}]
    assert ask(texts=[], tool_calls=calls, input_type="response")["action"] == "BLOCKED"
    for body in ({"texts": 7}, {"texts": [7]}, {"input_type": "x"}, {"texts": [], "structured_messages": [7]}):
        response = front.client.post(LITELLM, json=body)
        check_error(response, 400, response.json()["error"]["code"], front.upstream)


def test_litellm_gets_the_texts_as_rewritten(gateway: Callable[..., httpx.Client], policy: Callable[..., Path]) -> None:
    rails = policy()
    (rails / "house" / "config.yml").write_text(
        "models: []\nrails:\n  input:\n    flows: [mask it]\n  output:\n    flows: [mask that]\n"
    )
    (rails / "house" / "policy.yml").write_text("colang_routes: [allow, review]\n")
    (rails / "house" / "flows.co").write_text(
        "define subflow mask it\n  $user_message = 'masked'\n\ndefine subflow mask that\n  $bot_message = 'covered'\n"
    )
    client = gateway(rails_dir=rails, policy="house")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "secret"}]
    body = {"texts": ["Be brief.", "secret"], "structured_messages": messages, "input_type": "request"}
    assert client.post(LITELLM, json=body).json() == {
        "action": "GUARDRAIL_INTERVENED",
        "texts": ["Be brief.", "masked"],
    }
    body = {**body, "texts": ["Be brief.", "apart", "secret"]}
    assert client.post(LITELLM, json=body).json()["texts"] == ["Be brief.", "masked", "masked"]
    body = {"texts": ["one", "two"], "input_type": "response"}
    assert client.post(LITELLM, json=body).json() == {"action": "GUARDRAIL_INTERVENED", "texts": ["covered"] * 2}
    checked = client.post("/v1/guardrails/check", json={"messages": messages}).json()
    assert checked["decision"] == "modify"
    assert checked["messages"] == [messages[0], {"role": "user", "content": "masked"}]


def unchecked(front: Front, kind: str, endpoint: str = "chat_completions") -> float:
    return front.metrics()[f'hhh_unchecked_content_total{{endpoint="{endpoint}",kind="{kind}"}}']


def test_images_and_files_pass_and_are_counted(front: Front) -> None:
    before = {kind: unchecked(front, kind) for kind in ("image", "audio", "file")}
    message = {"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE, SOUND, FILE, IMAGE]}
    body = {"model": "m", "messages": [message]}
    assert front.ask(body).json() == front.upstream.reply
    assert json.loads(front.upstream.bodies[0]) == body
    counted = {kind: unchecked(front, kind) - before[kind] for kind in before}
    assert counted == {"image": 2, "audio": 1, "file": 1}
    later = {"model": "m", "messages": [message, {"role": "assistant", "content": "Yes."}, *HELLO["messages"]]}
    front.ask(later)  # they are old now
    assert unchecked(front, "image") == before["image"] + 2
    tokens = unchecked(front, "tokens", "embeddings")
    front.upstream.reply = {"object": "list", "data": []}
    front.client.post("/v1/embeddings", json={"model": "m", "input": [[1, 2], [3]]})
    assert unchecked(front, "tokens", "embeddings") == tokens + 2


def test_images_and_files_refused_where_the_policy_says_so(
    gateway: Callable[..., httpx.Client], upstream: Recorder, policy: Callable[..., Path]
) -> None:
    client = gateway(rails_dir=policy(unchecked_content="refuse"), policy="house")
    for part in (IMAGE, SOUND, FILE):
        body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]}
        response = client.post("/v1/chat/completions", json=body)
        assert response.json()["choices"][0]["finish_reason"] == "content_filter"
        assert response.json()["guardrails"]["rail"] == "unchecked_content"
    given = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
    assert client.post("/v1/responses", json={"model": "m", "input": given}).json()["status"] == "incomplete"
    assert client.post("/v1/embeddings", json={"model": "m", "input": [1, 2]}).status_code == 400
    assert client.post("/v1/completions", json={"model": "m", "prompt": [1]}).json()["guardrails"]
    assert upstream.bodies == []
    assert client.post("/v1/chat/completions", json=HELLO).json() == upstream.reply
    refused = samples(client.get("/metrics").text)
    assert refused['hhh_refusals_total{category="rail",policy="house",source="input_rail"}'] == 6


def test_comments_while_text_is_held(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(keepalive_seconds=0.1)
    upstream.chunks = [
        chunk({"role": "assistant", "content": "Held "}),
        chunk({"content": "till now."}),
        chunk({}, "stop"),
    ]
    upstream.chunk_seconds = 0.6
    began = time.monotonic()
    with client.stream("POST", "/v1/chat/completions", json=chat("Hello", stream=True)) as response:
        came = [(line, time.monotonic() - began) for line in response.iter_lines() if line]
    comments = [at for line, at in came if line.startswith(":")]
    assert len(comments) >= 3
    assert comments[0] < 0.6
    data = [line for line, _ in came if not line.startswith(":")]
    assert data == [f"data: {json.dumps(one)}" for one in upstream.chunks] + ["data: [DONE]"]


def test_no_comment_before_the_model_has_answered(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(keepalive_seconds=0.05)
    upstream.delay_seconds, upstream.status = 0.5, 429
    upstream.reply = {"error": {"message": "slow down", "type": "t", "param": None, "code": "rate_limit_exceeded"}}
    upstream.headers = {"retry-after": "9"}
    response = client.post("/v1/chat/completions", json=chat("Hello", stream=True))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "9"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"


def test_phrase_longer_than_the_overlap(gateway: Callable[..., httpx.Client], upstream: Recorder, policy: Any) -> None:
    """A pattern with a bound makes a stream hold back as much as the pattern is long."""
    rails = policy()
    phrase = "the forbidden sentence that goes on and on " * 5
    config = {"regex_detection": {"output": {"patterns": [phrase]}}}
    (rails / "house" / "config.yml").write_text(
        json.dumps({"models": [], "rails": {"config": config, "output": {"flows": ["regex check output"]}}})
    )
    client = gateway(rails_dir=rails, policy="house")
    text = "All is well here, and so on. " * 20 + phrase + "The end."
    upstream.chunks = spoken(*[text[start : start + 3] for start in range(0, len(text), 3)])
    response = client.post("/v1/chat/completions", json=chat("Hello", stream=True))
    said = "".join(choice["delta"].get("content") or "" for event in events(response) for choice in event["choices"])
    assert said.startswith("All is well")
    assert "the forbidden" not in response.text


def test_half_a_word_is_no_word(gateway: Callable[..., httpx.Client], upstream: Recorder, policy: Any) -> None:
    """A stream is blocked where the whole reply would be, and nowhere else, wherever a window ends."""
    rails = policy(streaming={"window_tokens": 1, "overlap_characters": 4})
    config = {"regex_detection": {"output": {"patterns": [r"\bclass\b"]}}}
    (rails / "house" / "config.yml").write_text(
        json.dumps({"models": [], "rails": {"config": config, "output": {"flows": ["regex check output"]}}})
    )
    client = gateway(rails_dir=rails, policy="house")
    for text, blocked in (("A classic is a subclass of classes here. " * 9, False), ("A first class ticket.", True)):
        upstream.chunks = spoken(*text)
        upstream.reply = completion(text)
        for stream in (False, True):
            response = client.post("/v1/chat/completions", json=chat("Hello", stream=stream))
            assert ("content_filter" in response.text) is blocked, text


def test_split_surrogates_are_a_character(front: Front) -> None:
    """A server that escapes may cut a pair over two chunks; the bytes pass, and the checks read the character."""
    halves = [
        b'{"choices":[{"index":0,"delta":{"content":"Well \\ud83d"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\\ude00 then."}}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    ]
    front.upstream.chunks = list(halves)  # type: ignore[arg-type]
    response = front.ask({**HELLO, "stream": True})
    assert response.content == front.upstream.wire()
    front.upstream.raw_reply = b'{"choices":[{"index":0,"message":{"content":"\\ud83d MARK-TOXIC"}}],"x":"\\ud83d"}'
    assert front.ask(HELLO).json()["choices"][0]["finish_reason"] == "content_filter"


def test_stream_without_done_whose_choices_have_ended(front: Front, say: Callable[..., Any]) -> None:
    from tests.fakes import http

    client, _ = say(http(200, b"".join(map(front.upstream.frame, spoken("Fine."))), "text/event-stream"))
    response = client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert response.text.endswith("data: [DONE]\n\n")
    assert "error" not in response.text


def test_upstream_ends_within_200_milliseconds_of_the_client(front: Front) -> None:
    front.upstream.chunks = [*spoken("An index fund follows an index. ")[:2], *[chunk({"content": "More. "})] * 2000]
    front.upstream.chunk_seconds = 0.02
    best = 9.0
    for _ in range(3):
        front.upstream.gone.clear()
        with front.client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
            next(response.iter_raw())
        left = time.monotonic()
        assert front.upstream.gone.wait(20)
        best = min(best, time.monotonic() - left)
    assert best < 0.2
    eventually(lambda: front.metrics()["hhh_inflight_requests"] == 0)


def test_openapi_names_every_route(front: Front) -> None:
    from gateway.http.routes import ROUTES

    document = front.client.get("/openapi.json").json()
    paths = {route.path.replace(":path", "") for route in ROUTES if not route.path.startswith("/console")}
    paths -= {"/openapi.json"}
    assert set(document["paths"]) == paths
