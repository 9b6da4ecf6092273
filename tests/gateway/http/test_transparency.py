"""What is allowed goes through untouched: the request's bytes, the reply's bytes, each chunk's bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import Recorder
from tests.gateway.http.conftest import HELLO, Front, chat

REQUEST = (
    b'\n{ "model" :"some/model:7b",\t"n": 2, "logprobs":true,  "top_logprobs" : 3,"temperature":1.0e-1,\r\n'
    b'"top_p":1.00,"seed":9007199254740993123, "x_vendor":{"b":1,"a":[null,true,{}]},"metadata":{"k":"v"},'
    b'"stop":["\\u00e9","\xc3\xa9"],"tools":[{"type":"function","function":{"name":"price",'
    b'"description":"\xf0\x9f\x92\xb6","parameters":{"type":"object","properties":{"id":{"type":"string"},'
    b'"ID":{"type":"string"}}},"strict":true}}],"tool_choice":"auto",'
    b'"messages":[{"role":"system","content":"Be brief."},{"content":[{"type":"text","text":"What is \\ud83d\\udcb6 '
    b'and \xe2\x82\xac?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}'
    b'}],"role":"user","name":"ann"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",'
    b'"function":{"name":"price","arguments":"{\\"id\\": \\"X\\"}"}}]},{"role":"tool","tool_call_id":"c1",'
    b'"content":"12.50"},{"role":"user","content":"And now?   "}],"user":"u-1","response_format":{"type":"text"} }\n\n'
)

REPLY = (
    b'{\n  "id":"chatcmpl-1", "object" : "chat.completion","created":1700000000,"model":"other-name","choices":['
    b'{"index":0,"message":{"role":"assistant","content":"About 12.50 \xe2\x82\xac \\u2014 today.","refusal":null,'
    b'"annotations":[],"audio":null},"logprobs":{"content":[{"token":"A","logprob":-0.10,"bytes":[65],'
    b'"top_logprobs":[]}],"refusal":null},"finish_reason":"stop"},'
    b'{"index":1,"message":{"role":"assistant","content":null,"reasoning_content":"I look it up.",'
    b'"tool_calls":[{"id":"c2","type":"function","function":{"name":"price","arguments":"{\\"id\\":\\"Y\\"}"}}]},"logprobs":null,'
    b'"finish_reason":"tool_calls","x_extra":1.50}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":0}},'
    b'"system_fingerprint":"fp_1","service_tier":"default","x_vendor":[1,2.0,{"deep":[]}]}\n'
)

CHUNKS = [
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"obfuscation":"aZ"}',
    b'{ "id":"c" , "choices":[{"index":0,"delta":{"content":"An index fund \xe2\x82\xac "},"logprobs":{"content":'
    b'[{"token":"An","logprob":-1.0e-2,"bytes":null,"top_logprobs":[]}]},"finish_reason":null}] }',
    b'{"id":"c","choices":[{"index":1,"delta":{"role":"assistant","content":"Another choice.\\n"}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"content":"follows \\u00e9 an index."},"finish_reason":null}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","type":"function",'
    b'"function":{"name":"f","arguments":""}}]}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":1}"}}]}}]}',
    b'{"id":"c","choices":[{"index":1,"delta":{},"finish_reason":"stop"}],"x":{"y":1.0}}',
    b'{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}',
    b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
]


def events(*payloads: bytes) -> bytes:
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


def test_request_and_reply_pass_byte_for_byte(front: Front) -> None:
    front.upstream.raw_reply = REPLY
    response = front.ask(REQUEST)
    assert response.status_code == 200
    assert front.upstream.bodies == [REQUEST]
    assert response.content == REPLY
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-guardrail-decision"] == "allow"


def test_stream_passes_byte_for_byte(front: Front) -> None:
    front.upstream.chunks = list(CHUNKS)
    body = REQUEST.replace(b'"n": 2', b'"n": 2, "stream" : true, "stream_options":{"include_usage":true}')
    response = front.ask(body)
    assert front.upstream.bodies == [body]
    assert response.content == events(*CHUNKS, b"[DONE]")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-guardrail-decision"] == "allow"


NUMBERS = (
    b'"temperature":1.0,"top_p":0.10,"x":[1e-5,1E+2,-0.0,{"deep":3.141592653589793238462643383279,"none":{},"all":[]}],'
    b'"seed":18014398509481985,"big":123456789012345678901234567890'
)


def test_numbers_of_a_changed_request_keep_their_digits(
    gateway: Callable[..., httpx.Client], upstream: Recorder
) -> None:
    client = gateway(upstream={"model": "served"})
    messages = b'"messages":[{"role":"user","content":"What is 1.10 \xe2\x82\xac?"}]'
    response = client.post("/v1/chat/completions", content=b'{"model":"m",' + messages + b"," + NUMBERS + b"}")
    assert response.status_code == 200
    assert upstream.bodies == [b'{"model":"served",' + messages + b"," + NUMBERS + b"}"]


@pytest.mark.parametrize("stream", [False, True])
def test_numbers_of_a_changed_reply_keep_their_digits(front: Front, stream: bool) -> None:
    """Of two choices one is refused, and the other written anew."""
    name, end = ("delta", b"null") if stream else ("message", b'"stop"')
    choices = b",".join(
        b'{"index":%d,"%s":{"role":"assistant","content":"%s"},"finish_reason":%s,%s}'
        % (index, name.encode(), text, end, NUMBERS)
        for index, text in enumerate([b"Fine. ", b"MARK-TOXIC. "])
    )
    body = b'{"id":"c","choices":[' + choices + b"]," + NUMBERS + b"}"
    front.upstream.raw_reply = body
    front.upstream.chunks = [body, b'{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}']
    response = front.ask({**HELLO, "n": 2, "stream": stream})
    assert response.headers["x-guardrail-decision"] == "block" or stream
    assert "MARK-TOXIC" not in response.text
    assert response.content.count(NUMBERS) == 2
    assert response.content.count(b'"content":"Fine. "') == 1


def test_data_of_several_lines_stays_one_event(front: Front) -> None:
    front.upstream.chunks = [b'{"choices":[{"index":0,\ndata: "delta":{"content":"Hi."},"finish_reason":"stop"}]}']
    response = front.ask({**HELLO, "stream": True})
    assert response.content == events(*front.upstream.chunks, b"[DONE]")


def test_compressed_reply_is_the_same_reply(front: Front) -> None:
    front.upstream.raw_reply = gzip.compress(REPLY)
    front.upstream.headers = {"content-encoding": "gzip"}
    response = front.ask(HELLO)
    assert response.content == REPLY
    assert "content-encoding" not in response.headers


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)


@given(
    extra=st.dictionaries(plain.map(lambda name: f"x_{name.lower()}"), values, max_size=4),
    text=plain,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_unknown_field_arrives_as_sent(
    front: Front, extra: dict[str, Any], text: str, ascii_only: bool, indent: int | None
) -> None:
    folded = {name.casefold(): name for name in extra}
    extra = {name: extra[name] for name in folded.values()}
    front.upstream.bodies.clear()
    body = json.dumps({**extra, **chat(f"Hello. {text}")}, ensure_ascii=ascii_only, indent=indent).encode()
    assert front.ask(body).status_code == 200
    assert front.upstream.bodies == [body]


def test_set_model_changes_only_the_model(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    client = gateway(upstream={"model": "real-model"})
    upstream.raw_reply = REPLY
    response = client.post("/v1/chat/completions", content=REQUEST)
    assert json.loads(upstream.bodies[0]) == {**json.loads(REQUEST), "model": "real-model"}
    assert response.content == REPLY
    same = json.dumps({**HELLO, "model": "real-model"}, indent=2).encode()
    client.post("/v1/chat/completions", content=same)
    assert upstream.bodies[1] == same


@pytest.mark.parametrize("stream", [False, True])
def test_advice_adds_only_a_system_message(front: Front, stream: bool) -> None:
    body = {**json.loads(REQUEST), "stream": stream}
    body["messages"] = [body["messages"][1], {"role": "assistant", "content": "Yes?"}, *chat("MARK-ADVICE")["messages"]]
    response = front.ask(body)
    sent = json.loads(front.upstream.bodies[0])
    guidance = sent["messages"].pop(0)
    assert sent == body
    assert guidance.keys() == {"role", "content"}
    assert guidance["role"] == "system"
    assert "licensed" in guidance["content"]
    assert response.headers["x-guardrail-decision"] == "advise"


def test_advice_joins_the_system_message_that_is_there(front: Front) -> None:
    body = chat("MARK-ADVICE")
    body["messages"].insert(0, {"role": "system", "content": "Be brief.", "name": "house"})
    front.ask(body)
    sent = json.loads(front.upstream.bodies[0])
    assert sent["messages"][1:] == body["messages"][1:]
    assert sent["messages"][0]["content"].startswith("Be brief.\n\n")
    assert sent["messages"][0]["name"] == "house"


def test_upstream_gets_its_own_key_and_no_header_of_the_client(
    gateway: Callable[..., httpx.Client], upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream")
    monkeypatch.setenv("CLIENT_KEYS", "sk-client")
    client = gateway(client_keys_env="CLIENT_KEYS", upstream={"api_key_env": "UPSTREAM_KEY"})
    headers = {"authorization": "Bearer sk-client", "cookie": "a=b", "x-request-id": "mine", "openai-organization": "o"}
    assert client.post("/v1/chat/completions", json=HELLO, headers=headers).status_code == 200
    sent = upstream.requests[0]
    assert sent["authorization"] == "Bearer sk-upstream"
    assert sent["content-type"] == "application/json"
    assert "cookie" not in sent
    assert "sk-client" not in str(sent)


def test_without_an_upstream_key_no_authorization_is_sent(front: Front) -> None:
    front.ask(HELLO, authorization="Bearer anything")
    assert "authorization" not in front.upstream.requests[0]


def test_large_body_passes(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": [image]}]}).encode()
    assert gateway().post("/v1/chat/completions", content=body).status_code == 200
    assert upstream.bodies == [body]
