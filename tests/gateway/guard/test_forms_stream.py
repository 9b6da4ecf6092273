"""Streams of responses and of the older completions, over arbitrary splits: a prefix of what is allowed goes out."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Call, Chunk, Form, dump
from gateway.forms.completions import COMPLETIONS
from gateway.forms.responses import RESPONSES
from gateway.record.metrics import Metrics
from tests.endpoints import response_events
from tests.gateway.guard.parts import CALM, FakeLane, guard, observation, released
from tests.gateway.guard.test_window import FILLER, PHRASE, splits, streaming


def call(form: Form) -> Call:
    body = {"model": "m", "stream": True, "prompt": "Hello", "input": "Hello"}
    return Call(form, body, dump(body), "req_1")


def of_responses(pieces: list[str]) -> list[Chunk]:
    found = response_events(pieces, [])
    return [Chunk(body, dump(body), body["type"].encode()) for body in found]


def of_completions(pieces: list[str]) -> list[Chunk]:
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, "text": piece}]} for piece in pieces]
    bodies.append({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    return [Chunk(body, dump(body)) for body in bodies]


def told(chunks: list[Chunk]) -> str:
    """The text that the model's own chunks carry, in deltas."""
    own = [one.body for one in chunks if one.raw is not None]
    deltas = "".join(body["delta"] for body in own if body.get("type") == "response.output_text.delta")
    return deltas + "".join(choice["text"] for body in own for choice in body.get("choices", ()))


def test_what_goes_out_is_a_prefix_of_what_is_allowed() -> None:
    metrics = Metrics()
    with asyncio.Runner() as runner:

        @settings(CALM, max_examples=1000)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            form, make = data.draw(st.sampled_from([(RESPONSES, of_responses), (COMPLETIONS, of_completions)]))
            phrase = data.draw(PHRASE)
            before, after = data.draw(FILLER), data.draw(FILLER)
            sent = make(data.draw(splits(before + phrase + after)))
            protector = guard(FakeLane(forbidden=(phrase,)), streaming=data.draw(streaming(len(phrase))))
            got = runner.run(released(protector, sent, call(form), seen=observation(metrics)))
            through = [one for one in got if one.raw is not None]
            assert all(one is two for one, two in zip(through, sent, strict=False))
            assert before.startswith(told(got))
            assert phrase not in "".join(str(one.body) for one in got)
            end = got[-1].body
            reason = end["response"]["incomplete_details"]["reason"] if "response" in end else None
            assert reason == "content_filter" or end["choices"][0]["finish_reason"] == "content_filter"

        check()


def test_nothing_is_lost_when_nothing_is_blocked() -> None:
    metrics = Metrics()
    with asyncio.Runner() as runner:

        @settings(CALM, max_examples=300)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            form, make = data.draw(st.sampled_from([(RESPONSES, of_responses), (COMPLETIONS, of_completions)]))
            sent = make(data.draw(splits(data.draw(FILLER))))
            protector = guard(FakeLane(forbidden=("#",)), streaming=data.draw(streaming()))
            got = runner.run(released(protector, sent, call(form), seen=observation(metrics)))
            assert [id(one) for one in got] == [id(one) for one in sent]

        check()
