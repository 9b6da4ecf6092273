"""The streaming window, over arbitrary splits: nothing forbidden gets out, nothing else is lost, no byte changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Chunk
from gateway.forms.chat import CHAT
from gateway.guard.policy import Streaming
from gateway.guard.window import Channel, Window
from gateway.record.metrics import Metrics
from tests.fakes import chunk
from tests.gateway.guard.parts import CALM, FakeLane, chat, chunks, guard, observation, released

# `#` occurs in phrases only, so that a phrase is found where it was put.
FILLER = st.text("ab .!\n", max_size=60)
PHRASE = st.text("#xy .\n", min_size=0, max_size=30).map(lambda text: f"#{text}#")
FIELDS = ("content", "refusal", "reasoning_content", "some_field_we_do_not_know")


@st.composite
def splits(draw: st.DrawFn, text: str) -> list[str]:
    """A text cut anywhere, empty pieces included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def streaming(draw: st.DrawFn, least_overlap: int = 0) -> dict[str, int]:
    return {
        "window_tokens": draw(st.integers(1, 8)),
        "overlap_characters": draw(st.integers(least_overlap, least_overlap + 40)),
        "context_characters": draw(st.integers(100, 130)),
    }


@st.composite
def replies(draw: st.DrawFn, *texts: str) -> list[Chunk]:
    """Chunks that say these texts, one per choice, interleaved, with chunks between them that say nothing."""
    pieces: dict[int, list[str]] = {index: draw(splits(text)) for index, text in enumerate(texts)}
    order = [index for index, found in pieces.items() for _ in range(len(found) + 1)]
    fields = [draw(st.sampled_from(FIELDS)) for _ in texts]
    bodies = []
    for index in draw(st.permutations(order)):
        if pieces[index]:
            delta: dict[str, Any] = {fields[index]: pieces[index].pop(0)}
            if draw(st.booleans()):
                delta["role"] = "assistant"
            bodies.append(chunk(delta, index=index))
        else:
            bodies.append(chunk({}, draw(st.sampled_from(["stop", "length"])), index=index))
        if draw(st.integers(0, 9)) == 0:
            bodies.append(chunk(None))
    if draw(st.booleans()):
        bodies.append(chunk(None, usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}))
    return chunks(*bodies)


def push(window: Window, sent: Chunk | dict[str, Any]) -> list[Channel]:
    one = sent if isinstance(sent, Chunk) else chunks(sent)[0]
    return window.push(one, CHAT.tape(chat(stream=True)).read(one))


def said(found: list[Chunk], index: int) -> str:
    deltas = [c["delta"] for one in found for c in one.body["choices"] if c["index"] == index]
    return "".join(delta[name] for delta in deltas for name in FIELDS if name in delta)


def test_no_character_of_a_blocked_phrase_is_released() -> None:
    metrics = Metrics()
    with asyncio.Runner() as runner:

        @settings(CALM, max_examples=2000)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            phrase = data.draw(PHRASE)
            before, after, other = data.draw(FILLER), data.draw(FILLER), data.draw(FILLER)
            sent = data.draw(replies(before + phrase + after, other))
            protector = guard(FakeLane(forbidden=(phrase,)), streaming=data.draw(streaming(len(phrase))))
            got = runner.run(released(protector, sent, chat(stream=True, n=2), seen=observation(metrics)))
            own = [one for one in got if one.raw is None]
            through = [one for one in got if one.raw is not None]
            # What passed is the model's chunks in their order, those of the blocked choice up to the block alone.
            place = {id(one): number for number, one in enumerate(sent)}
            order = [place[id(one)] for one in through]
            assert order == sorted(order)
            assert (before + phrase).startswith(said(through, 0))
            assert len(said(through, 0)) <= len(before)
            assert "#" not in "".join(said(through, 0))
            assert said(through, 1) == other
            ends = [c["finish_reason"] for one in got for c in one.body["choices"] if c["index"] == 0]
            assert [reason for reason in ends if reason] == ["content_filter"]
            assert own[-1].body["guardrails"]["decision"] == "block"

        check()


def test_nothing_is_lost_when_nothing_is_blocked() -> None:
    metrics = Metrics()
    with asyncio.Runner() as runner:

        @settings(CALM, max_examples=500)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            texts = data.draw(st.lists(FILLER, min_size=1, max_size=3))
            sent = data.draw(replies(*texts))
            lane = FakeLane(forbidden=("#",))
            request = chat(stream=True, stream_options={"include_usage": True})
            rules = data.draw(streaming())
            got = runner.run(released(guard(lane, streaming=rules), sent, seen=observation(metrics), request=request))
            assert [id(one) for one in got] == [id(one) for one in sent]
            for text in texts:  # the last check of each text saw its end, and all of a short one
                assert not text or any(text[-100:] in seen for seen in lane.texts("output"))

        check()


def test_prefix_of_the_reply_at_every_moment() -> None:
    """Whatever is released when, a finish chunk never comes before the text it ends."""

    @settings(CALM, max_examples=200)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        sent = data.draw(replies(data.draw(FILLER)))
        window = Window(Streaming(**data.draw(streaming())))
        out: list[Chunk] = []

        def step(due: list[Channel]) -> None:
            for channel in due:
                window.clear(channel)
            out.extend(window.release()[0])
            assert [id(one) for one in out] == [id(one) for one in sent[: len(out)]]

        for one in sent:
            step(push(window, one))
        step(window.end())
        assert len(out) == len(sent)

    check()


@pytest.mark.parametrize("size", [1, 7, 500, 3000])
def test_phrase_anywhere_in_a_long_reply_of_large_chunks(size: int) -> None:
    """What is pushed between two checks is looked at whole, however long the chunks are."""
    text = "word " * 4000
    for at in (0, 4_900, 10_000, 19_990):
        whole = text[:at] + "#forbidden#" + text[at:]
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        if size == 1:
            pieces = [whole[:at], *whole[at : at + 11], whole[at + 11 :]]
        sent = chunks(*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop"))
        rules = {"window_tokens": 24, "overlap_characters": 20, "context_characters": 100}
        got = asyncio.run(released(guard(FakeLane(forbidden=("#forbidden#",)), streaming=rules), sent))
        assert len(said([one for one in got if one.raw is not None], 0)) <= at
        assert got[-1].body["choices"][0]["finish_reason"] == "content_filter"


def test_check_sees_context_overlap_and_window() -> None:
    """A check looks at what is new, at what is held, and at `context_characters` before it."""
    lane = FakeLane()
    sent = chunks(*(chunk({"content": f"{number:04d} "}) for number in range(400)), chunk({}, "stop"))
    asyncio.run(released(guard(lane, streaming={"window_tokens": 10, "context_characters": 200}), sent))
    checks = lane.texts("output")
    whole = "".join(f"{number:04d} " for number in range(400))
    begins = [whole.index(text) for text in checks]
    ends = [begin + len(text) for begin, text in zip(begins, checks, strict=True)]
    assert ends[-1] == len(whole)
    for begin, before in zip(begins[1:], ends, strict=False):
        assert begin == max(0, before - 200)
    # Ten chunks of five characters make a window, unless all of it would be held anyway.
    assert max(after - before for before, after in zip([0, *ends], ends, strict=False)) <= 64 + 5


def test_overlap_larger_than_the_context() -> None:
    phrase = "#" + "x" * 150 + "#"
    text = "a" * 300 + phrase + "b" * 300
    sent = chunks(*(chunk({"content": character}) for character in text), chunk({}, "stop"))
    rules = {"window_tokens": 3, "overlap_characters": 160, "context_characters": 100}
    got = asyncio.run(released(guard(FakeLane(forbidden=(phrase,)), streaming=rules), sent))
    through = said([one for one in got if one.raw is not None], 0)
    assert through
    assert set(through) == {"a"}
    assert got[-1].body["choices"][0]["finish_reason"] == "content_filter"


def test_short_reply_is_checked_once() -> None:
    lane = FakeLane()
    sent = chunks(*(chunk({"content": piece}) for piece in ("One. ", "Two. ", "Three.")), chunk({}, "stop"))
    asyncio.run(released(guard(lane), sent))
    assert lane.texts("output") == ["One. Two. Three."]


def test_what_was_checked_is_not_checked_again() -> None:
    """The finish chunk brings no text: what ended in a checked sentence goes without another check."""
    lane = FakeLane()
    sent = chunks(chunk({"content": "A sentence that is rather longer than the overlap is. " * 2}), chunk({}, "stop"))
    assert asyncio.run(released(guard(lane), sent)) == sent
    assert len(lane.texts("output")) == 1


@pytest.mark.parametrize("end", [".", "!", "?", "\n", ". ", ".\n\n", "\u3002", "\uff01", "\uff1f"])
def test_check_is_due_at_the_end_of_a_sentence(end: str) -> None:
    window = Window(Streaming(window_tokens=1000, overlap_characters=4))
    assert push(window, chunk({"content": "one two three"})) == []
    (channel,) = push(window, chunk({"content": end}))
    assert channel.text == f"one two three{end}"


@pytest.mark.parametrize("text", [" ", "", "e.g", "1.5", "-"])
def test_check_is_not_due_elsewhere(text: str) -> None:
    window = Window(Streaming(window_tokens=1000, overlap_characters=4))
    assert push(window, chunk({"content": "one two three"})) == []
    assert push(window, chunk({"content": text})) == []


def test_a_text_that_has_ended_does_not_hold_up_the_next() -> None:
    """Reasoning comes before the answer; its last characters must not keep the answer waiting to the end."""
    window = Window(Streaming(window_tokens=4, overlap_characters=20))
    came = []
    thoughts = chunks(*(chunk({"reasoning_content": "thinking "}) for _ in range(10)))
    answer = chunks(*(chunk({"content": "answer "}) for _ in range(20)))
    for one in [*thoughts, *answer]:
        for channel in push(window, one):
            window.clear(channel)
        came += window.release()[0]
    assert set(map(id, thoughts)) <= set(map(id, came))
    assert len(came) >= len(thoughts) + len(answer) - 8


def test_phrase_over_a_short_interruption_is_still_held() -> None:
    sent = chunks(
        chunk({"content": "a ###"}),
        chunk({"reasoning_content": "hm, so. "}),
        chunk({"content": "### b"}),
        chunk({}, "stop"),
    )
    got = asyncio.run(released(guard(FakeLane(forbidden=("######",))), sent))
    assert all(one.raw is None for one in got)


@pytest.mark.parametrize(
    "bad",
    [
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"index": "0", "delta": {}}]},
        {"choices": [{"index": [0], "delta": {}}]},
        {"choices": [None]},
    ],
)
def test_what_is_no_chunk_is_the_upstreams_failure(bad: dict[str, Any]) -> None:
    from gateway.errors import UpstreamBroken

    with pytest.raises(UpstreamBroken):
        asyncio.run(released(guard(), chunks(bad)))
