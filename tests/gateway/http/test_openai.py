"""The real `openai` client against the gateway: what a chatbot team sees who changed one line."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.fakes import chunk, completion, spoken
from tests.gateway.http.conftest import Front

HELLO = [{"role": "user", "content": "What is an index fund?"}]
HARM = [{"role": "user", "content": "MARK-HARM"}]


@pytest.fixture
def client(front: Front) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{front.client.base_url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def ask(client: openai.OpenAI, messages: object = HELLO, **fields: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="m", messages=messages, **fields)  # type: ignore[call-overload,no-any-return]


def test_unary(client: openai.OpenAI, front: Front) -> None:
    reply = ask(client)
    assert reply.choices[0].message.content == "An index fund follows an index."
    assert reply.usage is not None
    assert reply.usage.total_tokens == 12
    assert reply.to_dict() == front.upstream.reply


def test_tool_call(client: openai.OpenAI, front: Front) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "price", "arguments": '{"id": 1}'}}
    front.upstream.reply = completion(None)
    front.upstream.reply["choices"][0]["message"]["tool_calls"] = [call]
    found = ask(client).choices[0].message.tool_calls
    assert found is not None
    assert found[0].to_dict() == call


def test_stream(client: openai.OpenAI, front: Front) -> None:
    counted = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    front.upstream.chunks = [*spoken("An index fund ", "follows an index."), chunk(None, usage=counted)]
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    said = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert said == "An index fund follows an index."
    assert chunks[-1].usage.to_dict() == counted


def test_block(client: openai.OpenAI) -> None:
    reply = ask(client, HARM)
    choice = reply.choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.content == choice.message.refusal
    assert choice.message.content
    assert reply.usage is not None
    assert reply.usage.total_tokens == 0
    assert reply.model_extra is not None
    assert reply.model_extra["guardrails"]["category"] == "harmful.fraud"


def test_block_of_a_stream(client: openai.OpenAI) -> None:
    chunks = list(ask(client, HARM, stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert chunks[-1].model_extra["guardrails"]["decision"] == "block"
    assert chunks[1].choices[0].delta.content


def test_block_with_the_helpers_that_parse(client: openai.OpenAI) -> None:
    """Their answer to a content filter, whoever's it is: the events come, the final completion is refused."""
    with client.chat.completions.stream(model="m", messages=HARM) as stream:  # type: ignore[arg-type]
        said = [event.delta for event in stream if event.type == "content.delta"]
        with pytest.raises(openai.ContentFilterFinishReasonError):
            stream.get_final_completion()
    assert "can't help" in "".join(said)
    with pytest.raises(openai.ContentFilterFinishReasonError):
        client.chat.completions.parse(model="m", messages=HARM)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
def test_block_as_an_error(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, HARM, stream=stream, extra_headers={"x-guardrail-on-block": "error"})
    assert caught.value.code == "content_filter"
    assert caught.value.param == "prompt"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert caught.value.request_id
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="m",
        messages=HELLO,  # type: ignore[arg-type]
        extra_headers={"x-request-id": "mine"},
    )
    assert raw.headers["x-request-id"] == "mine"
    assert raw.headers["x-guardrail-decision"] == "allow"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["up-model"]
    assert client.models.retrieve("up-model").id == "up-model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("none")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (401, openai.InternalServerError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_error_of_the_upstream(
    client: openai.OpenAI, front: Front, status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    front.upstream.status = status
    front.upstream.reply = {"error": {"message": "said", "type": "t", "param": None, "code": "c"}}
    with pytest.raises(error) as caught:
        ask(client, stream=stream)
    assert caught.value.code == ("upstream_rejected" if error is openai.InternalServerError else "c")


def test_our_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [])
    assert caught.value.code == "empty_array"
    with pytest.raises(openai.APIStatusError) as large:
        ask(client, [{"role": "user", "content": "word " * 5_000}])
    assert large.value.status_code == 413


def test_stream_that_breaks_off(client: openai.OpenAI, front: Front) -> None:
    front.upstream.chunks = spoken(*["An index fund follows an index. "] * 20)
    front.upstream.die_after = 15
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, stream=True))
    assert caught.value.code == "upstream_broken"


def test_failed_check_is_not_tried_again(client: openai.OpenAI, front: Front) -> None:
    def failed() -> float:
        return sum(
            value for name, value in front.metrics().items() if "hhh_requests_total" in name and '"error"' in name
        )

    before = failed()
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client.with_options(max_retries=2), [{"role": "user", "content": "MARK-CRASH"}])
    assert caught.value.status_code == 503
    assert caught.value.code == "guardrail_failed"
    assert failed() == before + 1
    assert front.upstream.bodies == []


async def test_async_client(front: Front) -> None:
    async with openai.AsyncOpenAI(base_url=f"{front.client.base_url}/v1", api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        said = [one.choices[0].delta.content or "" async for one in stream]
    assert "".join(said) == "An index fund follows an index."
