"""`/v1/responses`: what goes through untouched, what is checked in requests and replies, and how a refusal looks."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.endpoints import events, response_body, response_events
from tests.gateway.http.conftest import Front, check_error

BAD = "MARK-TOXIC words."
ZERO = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def ask(front: Front, **fields: Any) -> httpx.Response:
    return front.client.post("/v1/responses", json={"model": "m", "input": "Hello", **fields})


REQUEST = (
    b'{ "model":"m", "previous_response_id" : "resp_0", "seed":18014398509481985,"store": true,"include":["x"],'
    b'"text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object","properties":{"z":{},"a":{}}}}},'
    b'"input":[{"role":"developer","content":"Be brief."},{"type":"message","role":"user","content":[{"type":'
    b'"input_text","text":"What is \\u00e9?"},{"type":"input_image","image_url":"data:image/png;base64,AA=="}]},'
    b'{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":'
    b'"c","output":"12.50"},{"type":"item_of_tomorrow_output","call_id":"c","x":[1.0]}], "x_vendor":{"a":1.0} }\n'
)


def test_request_and_reply_pass_byte_for_byte(front: Front) -> None:
    front.upstream.raw_reply = json.dumps({**response_body("Fine."), "x": [1.0]}, indent=3).encode()
    response = front.client.post("/v1/responses", content=REQUEST)
    assert front.upstream.bodies == [REQUEST]
    assert response.content == front.upstream.raw_reply


def test_stream_passes_byte_for_byte(front: Front) -> None:
    """Events that we do not know and reasoning included; there is no `[DONE]`."""
    known = response_events(["An index fund ", "follows \u20ac an index. "] * 20, ['{"a"', ":1}"])
    reasoning = [
        {
            "type": "response.output_item.added",
            "output_index": 5,
            "item": {"id": "rs", "type": "reasoning", "summary": []},
        },
        {"type": "response.reasoning_summary_text.delta", "output_index": 5, "summary_index": 0, "delta": "I think."},
        {"type": "response.event_of_tomorrow", "x": {"y": 1.0}},
        {
            "type": "response.output_item.done",
            "output_index": 5,
            "item": {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I think."}]},
        },
    ]
    front.upstream.chunks = [*known[:2], *reasoning, *known[2:]]
    response = ask(front, stream=True)
    assert response.content == front.upstream.wire()
    assert "[DONE]" not in response.text


@pytest.mark.parametrize(
    "given",
    [
        "MARK-HARM",
        [{"role": "user", "content": "MARK-HARM"}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "MARK-HARM"}]}],
        [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "MARK-HARM"}],
        [{"role": "user", "content": "MARK-HARM"}, {"role": "assistant", "content": "Sure, "}],
        [{"type": "function_call_output", "call_id": "c", "output": "MARK-INJECT"}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "MARK-INJECT"}]}],
        [{"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "MARK-INJECT"}]}],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_new_input_is_checked(front: Front, given: Any, stream: bool) -> None:
    response = ask(front, input=given, stream=stream)
    body = events(response)[-1]["response"] if stream else response.json()
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "content_filter"}
    (item,) = body["output"]
    assert item["type"] == "message"
    assert item["role"] == "assistant"
    (part,) = item["content"]
    assert part.keys() == {"type", "refusal"}
    assert part["type"] == "refusal"
    assert part["refusal"]
    assert {name: body["usage"][name] for name in ZERO} == ZERO
    assert body["guardrails"]["decision"] == "block"
    assert "MARK" not in response.text
    assert front.upstream.bodies == []


def test_variables_of_a_prompt_are_checked(front: Front) -> None:
    for value in ("MARK-HARM", {"type": "input_text", "text": "MARK-HARM"}):
        response = front.client.post("/v1/responses", json={"prompt": {"id": "p", "variables": {"a": value}}})
        assert response.json()["status"] == "incomplete"
    assert front.upstream.bodies == []


def test_an_earlier_refused_turn_does_not_poison_later_ones(front: Front) -> None:
    front.upstream.reply = response_body("Fine.")
    history = [
        {"role": "user", "content": "MARK-HARM"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Then what is a fund?"},
    ]
    assert ask(front, input=history).json() == front.upstream.reply


def test_guidance_goes_into_the_instructions(front: Front) -> None:
    front.upstream.reply = response_body("Fine.")
    assert ask(front, input="MARK-ADVICE", instructions="Be brief.").headers["x-guardrail-decision"] == "advise"
    ask(front, input="MARK-ADVICE", instructions=[{"role": "system", "content": "s"}])
    first, second = (json.loads(body) for body in front.upstream.bodies)
    assert first["instructions"].startswith("Be brief.\n\n")
    assert first["input"] == "MARK-ADVICE"
    assert second["input"][0]["role"] == "developer"
    assert second["input"][1] == {"role": "user", "content": "MARK-ADVICE"}


OUTPUTS: list[dict[str, Any]] = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": BAD}]},
    {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": BAD}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": BAD}]},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": BAD}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": f'{{"a": "{BAD}"}}'},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": "M\\u0041RK-TOXIC"}'},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": BAD},
    {"type": "code_interpreter_call", "code": BAD},
    {"type": "mcp_call", "name": "f", "arguments": "{}", "output": BAD},
    {"type": "item_of_tomorrow", "words": [BAD]},
]


@pytest.mark.parametrize("item", OUTPUTS, ids=lambda item: item["type"])
def test_every_text_of_a_reply_is_checked(front: Front, item: dict[str, Any]) -> None:
    good = response_body("Fine.")
    front.upstream.reply = {**good, "output": [*good["output"], item], "output_text": "Fine.", "x": 1}
    response = ask(front)
    body = response.json()
    assert "TOXIC" not in response.text
    assert "RK-TOX" not in response.text
    assert body["status"] == "incomplete"
    assert body["usage"] == good["usage"]
    assert body["x"] == 1
    assert body["id"] == "resp_up"
    assert [part["type"] for one in body["output"] for part in one["content"]] == ["refusal"]


@pytest.mark.parametrize("item", OUTPUTS, ids=lambda item: item["type"])
def test_every_text_of_a_stream_is_checked(front: Front, item: dict[str, Any]) -> None:
    """Also where a server sends no deltas: the item, and the response at the end, hold it whole."""
    whole = response_events(["Fine. "], [])
    last = whole[-1]["response"]
    added = [
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.output_item.done", "output_index": 1, "item": item},
    ]
    for chunks in (
        [*whole[:-1], *added, whole[-1]],
        [*whole[:-1], {**whole[-1], "response": {**last, "output": [*last["output"], item]}}],
    ):
        front.upstream.chunks = chunks
        response = ask(front, stream=True)
        check_refused(response)
        assert "TOXIC" not in response.text
        assert "RK-TOX" not in response.text


def check_refused(response: httpx.Response) -> dict[str, Any]:
    """A stream that is well formed and ends in a refusal. Returns its last event."""
    found = events(response)
    numbers = [event["sequence_number"] for event in found]
    assert numbers == sorted(set(numbers))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    open_items: set[int] = set()
    for event in found:
        if event["type"] == "response.output_item.added":
            open_items.add(event["output_index"])
        if event["type"] == "response.output_item.done":
            open_items.remove(event["output_index"])
    assert open_items == set()
    last = found[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert last["response"]["output"][-1]["content"][0]["type"] == "refusal"
    assert [event["type"] for event in found].count("response.refusal.delta") == 1
    return dict(last)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("before", [0, 63, 400])
def test_stream_blocked_in_the_middle(front: Front, size: int, before: int) -> None:
    text = ("A fine sentence. " * 40)[:before] + " MARK-TOXIC. " + "And more. " * 5
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    front.upstream.chunks = response_events(pieces, [])
    response = ask(front, stream=True)
    last = check_refused(response)
    assert "TOXIC" not in response.text
    told = "".join(event["delta"] for event in events(response) if event["type"] == "response.output_text.delta")
    assert text.startswith(told)
    assert "MARK" not in told
    shown = [part["text"] for item in last["response"]["output"] for part in item["content"] if "text" in part]
    assert "".join(shown) == told
    assert last["response"]["usage"]["total_tokens"] == 12
    assert last["response"]["id"] == "resp_up"


def test_block_as_an_error(front: Front) -> None:
    for stream in (False, True):
        response = front.client.post(
            "/v1/responses",
            json={"model": "m", "input": "MARK-HARM", "stream": stream},
            headers={"x-guardrail-on-block": "error"},
        )
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "content_filter"


def test_stream_that_breaks_off_ends_in_an_error_event(front: Front) -> None:
    front.upstream.chunks = response_events(["A sentence that is fine. "] * 20, [])
    front.upstream.die_after = 15
    response = ask(front, stream=True)
    name, _, data = response.text.rstrip("\n").rpartition("data: ")
    assert name.endswith("event: error\n")
    error = json.loads(data)
    assert error["type"] == "error"
    assert error["code"] == error["error"]["code"] == "upstream_broken"
    assert "response.completed" not in response.text
    told = "".join(event.get("delta", "") for event in events(response))
    assert told.startswith("A sentence")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hello"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": 7}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["Hello"]}, "input[0]"),
        ({"model": "m", "input": [{"role": "king", "content": "Hello"}]}, "input[0].role"),
        ({"model": "m", "input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"model": "m", "input": [{"type": 7}]}, "input[0].type"),
        ({"model": "m", "input": "Hello", "stream": "yes"}, "stream"),
    ],
)
def test_invalid(front: Front, body: dict[str, Any], param: str) -> None:
    response = front.client.post("/v1/responses", json=body)
    check_error(response, 400, response.json()["error"]["code"], front.upstream)
    assert response.json()["error"]["param"] == param
    assert front.upstream.bodies == []


@pytest.mark.parametrize("reply", [[], {}, {"output": {}}, {"output": ["x"]}, {"output": [], "usage": 7}])
def test_reply_that_is_no_response(front: Front, reply: Any) -> None:
    front.upstream.reply = reply
    check_error(ask(front), 502, "upstream_broken", front.upstream)


@pytest.mark.parametrize(
    "event", [{"type": "error", "message": "boom"}, {"x": 1}, {"type": "response.completed", "response": []}]
)
def test_stream_that_is_none(front: Front, event: dict[str, Any]) -> None:
    front.upstream.chunks = [event]
    check_error(ask(front, stream=True), 502, "upstream_broken", front.upstream)


def test_openai_client(front: Front) -> None:
    with openai.OpenAI(base_url=f"{front.client.base_url}/v1", api_key="any", max_retries=0) as client:
        front.upstream.reply = response_body("An index fund.")
        assert client.responses.create(model="m", input="Hello").output_text == "An index fund."
        refused = client.responses.create(model="m", input="MARK-HARM")
        assert refused.status == "incomplete"
        assert refused.output[0].content[0].type == "refusal"  # type: ignore[union-attr]
        assert refused.output_text == ""
        front.upstream.chunks = response_events(["An index ", "fund."], ['{"a":1}'])
        with client.responses.stream(model="m", input="Hello") as stream:
            kinds = [event.type for event in stream]
            assert stream.get_final_response().output_text == "An index fund."
        assert kinds[-1] == "response.completed"
        front.upstream.chunks = response_events(["A fine sentence. "] * 20 + ["MARK-TOXIC."], [])
        with client.responses.stream(model="m", input="Hello") as stream:
            last = list(stream)[-1]
        assert last.type == "response.incomplete"
        assert last.response.incomplete_details.reason == "content_filter"
        front.upstream.die_after = 10
        with pytest.raises(openai.APIError) as caught:
            list(client.responses.create(model="m", input="Hello", stream=True))
        assert caught.value.code == "upstream_broken"
