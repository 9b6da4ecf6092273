"""Streams chunk by chunk: what is held, what is let go, and how a blocked stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.call import Chunk
from gateway.errors import RailFailed, UpstreamBroken
from gateway.guard import stream as streams
from gateway.guard.verdict import Plan
from gateway.record.metrics import Metrics
from tests.fakes import chunk, spoken
from tests.gateway.guard.parts import FakeLane, chat, chunks, guard, observation, released, sample

BAD = FakeLane(forbidden=("BAD",))
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "pay", "arguments": ""}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def run(sent: list[Chunk], lane: FakeLane = BAD, **options: Any) -> list[Chunk]:
    rules = options.pop("rules", {})
    return asyncio.run(released(guard(lane, **rules), sent, **options))


def ours(got: list[Chunk]) -> list[dict[str, Any]]:
    """The bodies of what the gateway itself said."""
    return [dict(one.body) for one in got if one.raw is None]


def arguments(piece: str, index: int = 0) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def test_first_chunk_with_role_goes_at_once() -> None:
    async def check() -> None:
        gate = asyncio.Event()

        async def slow() -> AsyncIterator[Chunk]:
            yield chunks(chunk({"role": "assistant", "content": ""}))[0]
            await gate.wait()

        stream = guard().check_stream(chat(stream=True), slow(), Plan(), observation())
        first = await asyncio.wait_for(anext(stream), 1)
        assert first.body["choices"][0]["delta"]["role"] == "assistant"
        gate.set()
        await stream.aclose()

    asyncio.run(check())


def test_text_is_held_while_it_is_unchecked() -> None:
    async def check() -> None:
        async def slow() -> AsyncIterator[Chunk]:
            yield chunks(chunk({"role": "assistant", "content": "Half a sent"}))[0]
            await asyncio.sleep(60)

        stream = guard().check_stream(chat(stream=True), slow(), Plan(), observation())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)

    asyncio.run(check())


def test_block_in_the_first_chunk_of_role_and_content() -> None:
    got = run(chunks(chunk({"role": "assistant", "content": "BAD"}), chunk({}, "stop")))
    first, refusal, end = ours(got)
    assert len(got) == 3
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert refusal["choices"][0]["delta"]["content"] == refusal["choices"][0]["delta"]["refusal"]
    assert end["choices"][0]["delta"] == {}
    assert end["choices"][0]["finish_reason"] == "content_filter"
    assert end["guardrails"]["stage"] == "output"
    assert {one["id"] for one in ours(got)} == {"chatcmpl-up"}
    assert {one["model"] for one in ours(got)} == {"up-model"}
    assert {one["created"] for one in ours(got)} == {1}
    assert all(one["object"] == "chat.completion.chunk" for one in ours(got))


def test_block_after_text_was_released() -> None:
    got = run(chunks(*spoken(*["A good sentence. "] * 20, "BAD")))
    assert "BAD" not in json.dumps([one.body for one in got])
    assert sum("role" in c["delta"] for one in got for c in one.body["choices"]) == 1
    blank, refusal, end = ours(got)
    assert blank["choices"][0]["delta"] == {"content": "\n\n"}  # the refusal stands apart from what was said
    assert refusal["choices"][0]["delta"]["content"].startswith("I can't")
    assert end["choices"][0]["finish_reason"] == "content_filter"


def test_long_chunk_is_held_whole() -> None:
    """A chunk is never split: when its end is within the overlap, all of it waits."""
    long = "A good sentence that is longer than what is held back, by some way at least. " * 2
    got = run(chunks(chunk({"role": "assistant", "content": ""}), chunk({"content": long}), chunk({"content": "BAD"})))
    assert [one.raw is None for one in got] == [False, True, True]


@pytest.mark.parametrize(
    ("style", "shown"),
    [("both", {"content", "refusal"}), ("content", {"content"}), ("refusal", {"refusal"})],
)
def test_refusal_style(style: str, shown: set[str]) -> None:
    got = run(chunks(*spoken(*["A good sentence. "] * 20, "BAD")), rules={"refusal_style": style})
    deltas = [one["choices"][0]["delta"] for one in ours(got)]
    said = next(delta for delta in deltas if delta.keys() == shown and "\n\n" not in delta.values())
    assert all(text.startswith("I can't") for text in said.values())
    assert ({"content": "\n\n"} in deltas) == (style != "refusal")


@pytest.mark.parametrize("name", ["content", "refusal", "reasoning_content", "reasoning", "thoughts_of_a_new_server"])
def test_every_text_field_is_checked(name: str) -> None:
    got = run(chunks(chunk({"role": "assistant"}), chunk({name: "B"}), chunk({name: "AD"}), chunk({}, "stop")))
    assert "content_filter" in json.dumps(ours(got))
    assert all(name not in c["delta"] for one in got if one.raw for c in one.body["choices"])


@pytest.mark.parametrize(
    "delta",
    [
        {"content": [{"type": "text", "text": "B"}, {"type": "text", "text": "AD"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "BAD"}]}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "BAD"}]},
        {"audio": {"id": "a", "transcript": "BAD", "data": "AAAA"}},
    ],
)
def test_nested_text_is_checked(delta: dict[str, Any]) -> None:
    assert ours(run(chunks(chunk(delta), chunk({}, "stop"))))


def test_choices_interleaved_and_one_blocked() -> None:
    bodies = [chunk({"role": "assistant", "content": ""}, index=index) for index in range(3)]
    bodies += [chunk({"content": "fine. "}, index=0), chunk({}, "stop", index=0)]
    bodies += [
        chunk({"content": "B"}, index=1),
        chunk({"content": "fine"}, index=2),
        chunk({"content": "AD."}, index=1),
    ]
    bodies += [chunk({}, "stop", index=2), chunk({}, "stop", index=1)]
    got = run(chunks(*bodies), request=chat(stream=True, n=3))
    finished = [(c["index"], c["finish_reason"]) for one in got for c in one.body["choices"] if c.get("finish_reason")]
    assert sorted(finished) == [(0, "stop"), (1, "content_filter"), (2, "stop")]
    assert "fine" in json.dumps([one.body for one in got if any(c["index"] == 2 for c in one.body["choices"])])
    assert "AD" not in json.dumps([one.body for one in got])


def test_choice_that_was_never_begun_has_a_whole_refusal() -> None:
    sent = chunks(chunk({"role": "assistant", "content": "fine"}, "stop"), chunk({"content": "BAD"}, "stop", index=1))
    got = run(sent, request=chat(stream=True, n=2))
    assert got[0] is sent[0]
    assert [one["choices"][0]["index"] for one in ours(got)] == [1, 1, 1]
    assert ours(got)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_several_choices_in_one_chunk() -> None:
    body = chunk({"content": "fine"})
    body["choices"].append({"index": 1, "delta": {"content": "BAD"}, "finish_reason": None})
    more = chunk({"content": ", all of it"}, "stop")
    more["choices"].append({"index": 1, "delta": {"content": "and more"}, "finish_reason": "stop"})
    got = run(chunks(body, more), request=chat(stream=True, n=2))
    said = "".join(
        c["delta"].get("content") or "" for one in got for c in one.body["choices"] if c["index"] == 0 and c["delta"]
    )
    assert said == "fine, all of it"
    assert "BAD" not in json.dumps(ours(got))
    assert "and more" not in json.dumps(ours(got))
    assert sorted(
        (c["index"], c["finish_reason"]) for one in got for c in one.body["choices"] if c["finish_reason"]
    ) == [(0, "stop"), (1, "content_filter")]


def test_tool_call_is_held_until_its_arguments_are_checked() -> None:
    bodies = [
        chunk({"role": "assistant", "content": None, "tool_calls": [CALL]}),
        *(chunk(arguments(piece)) for piece in ['{"to":', ' "B', 'AD"}']),
        chunk({}, "tool_calls"),
    ]
    got = run(chunks(*bodies))
    assert all(one.raw is None for one in got)
    assert "pay" not in json.dumps(ours(got))
    assert ours(got)[-1]["guardrails"]["stage"] == "tool"
    assert run(chunks(*bodies), FakeLane()) == chunks(*bodies)


@pytest.mark.parametrize("end", [[chunk({}, "tool_calls")], []])
def test_tool_call_goes_only_when_its_choice_is_finished(end: list[dict[str, Any]]) -> None:
    """Also where the choice is never finished: then when the stream is over."""

    async def check() -> None:
        came: list[Chunk] = []
        held: list[int] = []

        async def watched() -> AsyncIterator[Chunk]:
            for one in chunks(chunk({"tool_calls": [CALL]}), chunk(arguments("{}. ")), *end):
                held.append(len(came))
                yield one

        async for one in guard(FakeLane()).check_stream(chat(stream=True), watched(), Plan(), observation()):
            came.append(one)
        assert set(held) == {0}
        assert len(came) == 2 + len(end)

    asyncio.run(check())


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "go"}}]},
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "go"}}]},
        {"tool_calls": [{"index": 0, "id": "c"}]},
        {"function_call": {"name": "go"}},
    ],
)
def test_call_without_arguments_is_held_too(delta: dict[str, Any]) -> None:
    sent = chunks(chunk(delta), chunk({"content": "BAD"}), chunk({}, "tool_calls"))
    assert all(one.raw is None for one in run(sent))
    assert run(sent, FakeLane()) == sent


@pytest.mark.parametrize(
    "pieces",
    [
        [{"function_call": {"name": "pay", "arguments": "B"}}, {"function_call": {"arguments": "AD"}}],
        [
            {"tool_calls": [{"index": 1, "custom": {"name": "sh", "input": "B"}}]},
            {"tool_calls": [{"index": 1, "custom": {"input": "AD"}}]},
        ],
        [{"tool_calls": [{"index": 0, "function": {"name": "pay", "arguments": {"to": "BAD"}}}]}],
    ],
)
def test_other_shapes_of_calls_are_checked(pieces: list[dict[str, Any]]) -> None:
    assert all(one.raw is None for one in run(chunks(*(chunk(delta) for delta in pieces), chunk({}, "stop"))))


def test_two_calls_are_two_texts() -> None:
    lane = FakeLane()
    sent = chunks(
        *(chunk(arguments(*piece)) for piece in [('{"a"', 0), ('{"b"', 1), (":1}", 0), (":2}", 1)]),
        chunk({}, "tool_calls"),
    )
    assert run(sent, lane) == sent
    assert lane.texts("output") == ['{"a":1}', '{"b":2}']


def test_text_after_the_finish_is_held_to_the_end() -> None:
    sent = chunks(chunk({"content": "x. "}), chunk({}, "stop"), chunk({"content": "B"}), chunk({"content": "AD"}))
    got = run(sent)
    assert got[:2] == sent[:2]
    assert got[2:] == []  # the client has seen this choice end; no second end is sent


def test_usage_passes_and_is_counted_once() -> None:
    metrics = Metrics()
    growing = [{"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n} for n in (1, 2, 4)]
    sent = chunks(
        *(chunk({"content": "a "}, usage=usage) for usage in growing), chunk({}, "stop"), chunk(None, usage=USAGE)
    )
    request = chat(stream=True, stream_options={"include_usage": True})
    assert run(sent, seen=observation(metrics), request=request) == sent
    assert sample(metrics, "tokens_total", type="prompt") == 3
    assert sample(metrics, "tokens_total", type="completion") == 4


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
def test_usage_that_nobody_asked_for_is_counted_and_kept_back(options: dict[str, Any]) -> None:
    metrics = Metrics()
    filtered = chunk(None, prompt_filter_results=[], usage=None)
    sent = chunks(filtered, chunk({"content": "a "}, usage=USAGE), chunk({}, "stop", usage=USAGE))
    unasked = chunks(chunk(None, usage=USAGE), {**chunk(None, usage=USAGE), "choices": None})
    assert run([*sent, *unasked], seen=observation(metrics), request=chat(stream=True, **options)) == sent
    assert sample(metrics, "tokens_total", type="prompt") == USAGE["prompt_tokens"]
    assert sample(metrics, "tokens_total", type="completion") == USAGE["completion_tokens"]


@pytest.mark.parametrize("asked", [True, False])
def test_usage_after_a_block_only_when_asked_for(asked: bool) -> None:
    request = chat(stream=True, stream_options={"include_usage": asked})
    sent = chunks(*spoken("BAD"), chunk(None, usage=USAGE))
    got = ours(run(sent, request=request))
    assert [one["usage"] for one in got if "usage" in one] == ([USAGE] if asked else [])
    assert not asked or got[-1]["choices"] == []


@pytest.mark.parametrize("how", ["none", "breaks", "hangs"])
def test_usage_that_never_comes(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_USAGE_SECONDS", 0.05)

    async def upstream() -> AsyncIterator[Chunk]:
        for one in chunks(*spoken("BAD")):
            yield one
        if how == "breaks":
            raise UpstreamBroken("gone")
        if how == "hangs":
            await asyncio.sleep(60)

    async def check() -> list[Chunk]:
        request = chat(stream=True, stream_options={"include_usage": True})
        checked = guard(BAD).check_stream(request, upstream(), Plan(), observation())
        return [one async for one in checked]

    assert asyncio.run(check())[-1].body["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(("text", "out"), [("Half of a BA", "Half of a BA"), ("All of a BAD", "")])
def test_upstream_that_breaks_leaves_nothing_unchecked_out(text: str, out: str) -> None:
    """What had come by then is checked, and released when it passes; of tool calls, which are not whole, nothing."""

    async def upstream() -> AsyncIterator[Chunk]:
        for one in chunks(*spoken(text)[:2], chunk({"tool_calls": [CALL]})):
            yield one
        raise UpstreamBroken("gone")

    async def check() -> list[Chunk]:
        got: list[Chunk] = []
        stream = guard(BAD).check_stream(chat(stream=True), upstream(), Plan(), observation())
        try:
            async for one in stream:
                got.append(one)
        except UpstreamBroken:
            return got
        raise AssertionError("it went on")

    got = asyncio.run(check())
    assert "".join(c["delta"].get("content") or "" for one in got if one.raw for c in one.body["choices"]) == out
    assert not any("tool_calls" in c["delta"] for one in got for c in one.body["choices"])


def test_rail_that_breaks_ends_the_stream_as_a_failure() -> None:
    metrics = Metrics()
    broken = FakeLane(broken=("fine",))
    with pytest.raises(RailFailed):
        run(chunks(*spoken("fine")), broken, seen=observation(metrics))
    assert sample(metrics, "rail_errors_total", rail="breaker", error="timeout", fail_mode="closed") == 1
    sent = chunks(*spoken("fine"))
    assert run(sent, broken, rules={"fail_modes": {"default": "open"}}) == sent


def test_rewrite_becomes_a_block_that_names_the_rail() -> None:
    metrics = Metrics()
    got = run(chunks(*spoken("my secret is")), FakeLane(masked=("secret",)), seen=observation(metrics))
    assert "secret" not in json.dumps([one.body for one in got])
    assert ours(got)[-1]["guardrails"]["rail"] == "masker"
    assert sample(metrics, "refusals_total", policy="test", source="output_rail", category="rail") == 1
    assert sample(metrics, "rail_decisions_total", rail="masker", stage="output", decision="modify") == 0


def test_shadow_lets_all_through_and_counts_once() -> None:
    metrics = Metrics()
    sent = chunks(*spoken("BAD. ", "my secret. ", "BAD again."))
    lane = FakeLane(forbidden=("BAD",), masked=("secret",))
    assert run(sent, lane, seen=observation(metrics), rules={"mode": "shadow"}) == sent
    assert sample(metrics, "would_refuse_total", policy="test", source="output_rail", category="rail") == 1
    assert sample(metrics, "refusals_total", policy="test", source="output_rail", category="rail") == 0


def test_toxicity_of_what_is_not_out_yet() -> None:
    pieces = ["A good sentence. "] * 20
    got = run(chunks(*spoken(*pieces, "MARK-TOXIC words.")), FakeLane(), rules={"toxicity": {"output": 0.9}})
    assert ours(got)[-1]["guardrails"]["rail"] == "toxicity"
    assert "MARK" not in json.dumps([one.body for one in got])


@pytest.mark.parametrize(
    ("sent", "source_", "route", "counted"),
    [
        (spoken("I won't ", "do that."), "model", "allow", 1),
        (spoken("I won't ", "do that."), "model", "advise", 0),
        (spoken("Sure."), "model", "allow", 0),
        ([chunk({"refusal": "No."}), chunk({}, "stop")], "model", "review", 1),
        ([chunk({"content": "x"}), chunk({}, "content_filter")], "upstream_filter", "advise", 1),
    ],
)
def test_the_models_own_refusal(sent: list[dict[str, Any]], source_: str, route: Any, counted: int) -> None:
    metrics = Metrics()
    run(chunks(*sent), seen=observation(metrics), plan=Plan(route=route))
    assert sample(metrics, "refusals_total", policy="test", source=source_, category="none") == counted


def test_own_refusal_is_not_counted_beside_a_block() -> None:
    metrics = Metrics()
    run(chunks(*spoken("I won't do BAD.")), seen=observation(metrics))
    assert sample(metrics, "refusals_total", policy="test", source="model", category="none") == 0
    assert sample(metrics, "refusals_total", policy="test", source="output_rail", category="rail") == 1


def test_times_are_kept_apart() -> None:
    """What the client takes to read is neither the model's time nor ours."""

    async def check() -> None:
        async def upstream() -> AsyncIterator[Chunk]:
            for one in chunks(*spoken("One. ", "Two.")):
                await asyncio.sleep(0.01)
                yield one

        seen = observation()
        async for _ in guard().check_stream(chat(stream=True), upstream(), Plan(), seen):
            await asyncio.sleep(0.02)
        assert 0.03 < seen.upstream_seconds < 0.2
        assert 0.07 < seen.client_seconds < 0.4
        assert seen.guard_seconds < 0.03

    asyncio.run(check())


def test_closing_early_closes_the_source() -> None:
    closed = []

    async def check() -> None:
        async def upstream() -> AsyncIterator[Chunk]:
            try:
                for one in chunks(*spoken("One. ", "Two.")):
                    yield one
            finally:
                closed.append(True)

        chunks_ = upstream()
        stream = guard().check_stream(chat(stream=True), chunks_, Plan(), observation())
        await anext(stream)
        await stream.aclose()
        await chunks_.aclose()  # type: ignore[attr-defined]

    asyncio.run(check())
    assert closed


def test_the_output_rails_see_what_is_answered() -> None:
    lane = FakeLane()
    request = chat("old", {"role": "assistant", "content": "x"}, "first", "second", stream=True)
    run(chunks(*spoken("Yes.")), lane, request=request)
    assert lane.users == ["first\n\nsecond"]
