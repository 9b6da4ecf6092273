"""The reader of server-sent events: whatever the cuts and line ends, the events that were sent."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamBroken
from gateway.upstream.sse import Event, events

MOST = 10_000


async def pieces_of(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def read(*pieces: bytes, most: int = MOST) -> list[bytes]:
    async def run() -> list[bytes]:
        return [event.data async for event in events(pieces_of(pieces), most)]

    return asyncio.run(run())


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(ends)]


def by_the_standard(whole: bytes) -> list[bytes]:
    """The specification, line by line, but for the last event, which need not be closed."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*re.split(rb"\r\n|\n|\r", whole.removeprefix(b"\xef\xbb\xbf")), b""]:
        if line == b"":
            if any(data):
                found.append(b"\n".join(data))
            data = []
        elif line == b"data":
            data.append(b"")
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return found


# Payloads as a model server sends them: JSON with no line end in it, spaces and colons included.
payloads = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=15).map(
    lambda text: b'{"content": "' + text.encode() + b'"}'
)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
noise = st.sampled_from([b"", b": ping", b":", b"event: message", b"id: 7", b"retry: 10", b"data-like: x", b"xdata: y"])
cuts = st.lists(st.integers(0, 400), max_size=12)


@given(st.lists(st.tuples(payloads, noise, line_ends), max_size=6), cuts, st.booleans())
def test_what_was_sent_is_read(sent: list[tuple[bytes, bytes, bytes]], places: list[int], closed: bool) -> None:
    whole = b"".join((other + end if other else b"") + b"data: " + data + end + end for data, other, end in sent)
    if not closed:
        whole = whole.rstrip(b"\r\n")
    assert read(*cut(whole, places)) == [data for data, _, _ in sent]


lines = st.sampled_from(
    [b"data: a", b"data:b ", b"data:  c", b"data", b"data:", b":", b"", b"", b"event: x", b"datax: y"]
)


@given(st.lists(st.tuples(lines | st.binary(max_size=6), line_ends), max_size=12), cuts, st.booleans())
def test_any_bytes_in_any_pieces_are_read_by_the_standard(
    sent: list[tuple[bytes, bytes]], places: list[int], marked: bool
) -> None:
    whole = (b"\xef\xbb\xbf" if marked else b"") + b"".join(line + end for line, end in sent)
    assert read(*cut(whole, places)) == by_the_standard(whole)


def test_several_lines_of_data_are_one_event() -> None:
    assert read(b'data: {"a":\ndata: 1}\n\ndata: [DONE]\n\n') == [b'{"a":\n1}', b"[DONE]"]


def test_only_one_space_is_taken_off() -> None:
    assert read(b"data:  a \n\n") == [b" a "]
    assert read(b"data:  a ") == [b" a "]


def test_keep_alives_are_no_events() -> None:
    assert read(b": ping\n\n", b"data:\n\ndata: \n\n", b"\n\n\n", b"data: x\n\n") == [b"x"]


def test_an_event_is_read_as_soon_as_it_is_whole() -> None:
    """Also when its last line end is a CR that could be half of a CRLF."""
    for end in (b"\n", b"\r", b"\r\n"):
        given_out: list[bytes] = []

        async def pieces(end: bytes = end) -> AsyncIterator[bytes]:
            yield b"data: 1" + end + end
            assert given_out == [b"1"]  # noqa: B023
            yield b"data: 2" + end + end

        async def run() -> None:
            async for event in events(pieces(), MOST):
                given_out.append(event.data)  # noqa: B023

        asyncio.run(run())
        assert given_out == [b"1", b"2"]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: " + b"x" * 50, b"x" * 50 + b"\n\n"],
        [b"x" * 60] * 3,
        [b": " + b"x" * 100 + b"\n"],
        [b"data: xxxxxxxx\n"] * 20,
        [b"data:\n"] * 200,
    ],
    ids=["line", "line in pieces", "no line end", "comment", "event of many lines", "event of empty lines"],
)
def test_too_long(pieces: list[bytes]) -> None:
    with pytest.raises(UpstreamBroken, match="too long"):
        read(*pieces, most=100)
    assert read(b"data: " + b"x" * 90 + b"\n\n", most=100) == [b"x" * 90]


def test_what_came_before_a_line_that_is_too_long_is_still_read() -> None:
    found: list[bytes] = []

    async def run() -> None:
        async for event in events(pieces_of([b"data: 1\n\n", b"x" * 101]), 100):
            found.append(event.data)

    with pytest.raises(UpstreamBroken):
        asyncio.run(run())
    assert found == [b"1"]


def test_names_of_events_are_kept() -> None:
    async def run() -> list[Event]:
        sent = [b"event: response.created\ndata: {}\n\ndata: 1\n\nev", b"ent:error\ndata: 2\n"]
        return [event async for event in events(pieces_of(sent), MOST)]

    assert asyncio.run(run()) == [Event(b"{}", b"response.created"), Event(b"1", None), Event(b"2", b"error")]
