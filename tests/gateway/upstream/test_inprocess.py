"""OpenAI's shapes over an engine, by a scripted engine and by the shipped model."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from gateway.call import Call
from gateway.errors import BadRequest, ModelNotFound, NotServed, UpstreamBroken
from gateway.forms.chat import CHAT
from gateway.forms.completions import COMPLETIONS
from gateway.forms.embeddings import EMBEDDINGS
from gateway.forms.responses import RESPONSES
from gateway.upstream.embedded import EmbeddedEngine
from gateway.upstream.engine import Job, Piece, Sampler, Sampling
from gateway.upstream.generation import Text
from gateway.upstream.inprocess import InProcess


class Scripted:
    """Says its lines, and remembers the jobs."""

    name = "scripted"

    def __init__(self, lines: tuple[str, ...] = ("Hel", "lo"), error: Exception | None = None) -> None:
        self.lines = lines
        self.error = error
        self.jobs: list[Job] = []
        self.open = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def ready(self) -> bool:
        return True

    async def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        self.jobs.append(job)
        self.open += 1
        try:
            for line in self.lines:
                await asyncio.sleep(0)
                yield Piece(line)
            if self.error:
                raise self.error
            yield Piece("!", "stop", 7, 3)
        finally:
            self.open -= 1


def chat(route: str = "allow", model: str = "scripted", **body: Any) -> Call:
    messages = body.pop("messages", [{"role": "user", "content": "Hi"}])
    return Call(CHAT, {"model": model, "messages": messages, **body}, None, "r", route)


async def chunks(upstream: InProcess, chat: Call) -> list[dict[str, Any]]:
    return [dict(chunk.body) async for chunk in upstream.stream(chat)]


async def test_a_completion():
    body = (await InProcess(Scripted()).complete(chat())).body
    assert body["object"] == "chat.completion"
    assert body["model"] == "scripted"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


async def test_a_stream():
    found = await chunks(InProcess(Scripted()), chat(stream=True, stream_options={"include_usage": True}))
    assert {body["object"] for body in found} == {"chat.completion.chunk"}
    assert len({body["id"] for body in found}) == 1
    deltas = [body["choices"][0]["delta"] for body in found[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello!"
    assert [body["choices"][0]["finish_reason"] for body in found[:-1]] == [None] * (len(found) - 2) + ["stop"]
    assert all(body["usage"] is None for body in found[:-1])
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 10


async def test_no_usage_chunk_unless_asked():
    found = await chunks(InProcess(Scripted()), chat(stream=True))
    assert all(body["choices"] and "usage" not in body for body in found)


async def test_choices():
    engine = Scripted()
    body = (await InProcess(engine).complete(chat(n=3, seed=5))).body
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [job.sampling.seed for job in engine.jobs] == [5, 6, 7]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}

    found = await chunks(InProcess(Scripted()), chat(n=2, stream=True))
    for index in (0, 1):
        own = [body["choices"][0] for body in found if body["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "Hello!"
        assert own[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("n", [1, 2])
async def test_an_engine_that_fails(n: int):
    engine = Scripted(error=UpstreamBroken("The model failed."))
    with pytest.raises(UpstreamBroken):
        await InProcess(engine).complete(chat(n=n))
    with pytest.raises(UpstreamBroken):
        await chunks(InProcess(engine), chat(n=n))
    assert engine.open == 0


@pytest.mark.parametrize("n", [1, 2])
async def test_closing_a_stream_stops_the_engine(n: int):
    engine = Scripted(lines=("a",) * 1000)
    stream = InProcess(engine).stream(chat(n=n))
    await anext(stream)
    assert engine.open == n
    await stream.aclose()
    assert engine.open == 0


async def test_cancelling_a_completion_stops_the_engine():
    engine = Scripted(lines=("a",) * 100_000)
    task = asyncio.create_task(InProcess(engine).complete(chat(n=2)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.open == 0


@pytest.mark.parametrize(
    ("route", "control"), [("allow", "comply"), ("review", "comply"), ("advise", "advise"), ("refuse", "refuse")]
)
async def test_the_route_sets_the_control(route: str, control: str):
    engine = Scripted()
    await InProcess(engine).complete(chat(route))
    assert engine.jobs[0].control == control


async def test_parts_are_joined_and_nothing_else_is_read():
    engine = Scripted()
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": []}]
    await InProcess(engine).complete(chat(messages=messages, tools=[{"type": "function"}], unknown_field=1))
    assert [message["content"] for message in engine.jobs[0].messages] == ["a\nb", ""]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"n": 17}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": 5}, "stop"),
        ({"presence_penalty": 9}, "presence_penalty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)
async def test_what_cannot_be_served_is_said(body: dict[str, Any], param: str):
    with pytest.raises(BadRequest) as caught:
        await InProcess(Scripted()).complete(chat(**body))
    assert caught.value.param == param
    with pytest.raises(BadRequest):
        await chunks(InProcess(Scripted()), chat(**body))


async def test_an_unknown_model():
    with pytest.raises(ModelNotFound):
        await InProcess(Scripted()).complete(chat(model="gpt-4o"))
    listed = await InProcess(Scripted()).models()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["scripted"]


@pytest.mark.parametrize("form", [RESPONSES, COMPLETIONS, EMBEDDINGS])
async def test_other_endpoints_are_not_served(form):
    with pytest.raises(NotServed):
        await InProcess(Scripted()).complete(Call(form, {"model": "scripted"}, None, "r"))


def spell(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], Text]:
    data = text.encode()
    grown = Text(lambda ids: bytes(ids).decode(errors="replace"), stop)
    out = []
    for byte in data:
        out.append(grown.add(byte))
        if grown.stopped:
            break
    return out, grown


def test_characters_stay_whole():
    text = "caf\u00e9 \U0001f600 \u65e5\u672c"
    out, grown = spell(text)
    assert "".join(out) + grown.rest() == text
    assert not any("\ufffd" in piece for piece in out)


def test_a_stop_string_is_never_shown_even_in_part():
    out, grown = spell("one STOP two", ("STOP", "xx"))
    assert "".join(out) == "one "
    assert grown.stopped
    out, grown = spell("one STO two ST", ("STOP",))
    assert "".join(out) == "one STO two "
    assert grown.rest() == "ST"


def test_half_a_character_at_the_end_is_shown_as_such():
    grown = Text(lambda ids: bytes(ids).decode(errors="replace"), ())
    assert grown.add(0xC3) == ""
    assert grown.rest() == "\ufffd"


def test_sampling():
    logits = np.array([0.0, 3.0, 2.9, -5.0], dtype=np.float32)
    assert Sampler(Sampling(), 0.0).pick(logits) == 1
    assert {Sampler(Sampling(temperature=1.0, top_p=0.4, seed=s), 0.0).pick(logits) for s in range(30)} == {1}
    assert {Sampler(Sampling(temperature=1.0, top_p=0.6, seed=s), 0.0).pick(logits) for s in range(30)} == {1, 2}
    penalised = Sampler(Sampling(presence_penalty=1.0), 0.0)
    assert [penalised.pick(logits) for _ in range(2)] == [1, 2]
    drawn = [Sampler(Sampling(temperature=1.0, seed=s), 0.0).pick(logits) for s in range(400)]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.abs(np.bincount(drawn, minlength=4) / 400 - expected).max() < 0.1


async def test_streaming_says_what_unary_says():
    upstream = InProcess(EmbeddedEngine())
    await upstream.start()
    try:
        assert await upstream.ready()
        asked = {"model": "hhh-embedded", "temperature": 0.9, "seed": 4}
        unary = (await upstream.complete(chat(**asked))).body
        found = await chunks(upstream, chat(**asked, stream=True, stream_options={"include_usage": True}))
        content = "".join(body["choices"][0]["delta"].get("content", "") for body in found if body["choices"])
        assert content == unary["choices"][0]["message"]["content"]
        assert found[-1]["usage"] == unary["usage"]
    finally:
        await upstream.close()
