"""The streaming window: chunks are held, whole and in order, until what they say has been checked.

A check is due at the end of a sentence or after `window_tokens` chunks, whichever comes first. What a check has passed
is released up to the last `overlap_characters`, so that a phrase no longer than that never leaks in parts; tool-call
arguments are held until their choice is finished. Chunks are never split or rewritten.

A text is one field of one choice. What is not covered: a phrase with `overlap_characters` of another field in the
middle of it; it is found, but its first half may be out. Without that exception an answer would wait for the end of
the reply whenever the model's reasoning comes before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.chat import Chunk
from gateway.errors import UpstreamBroken
from gateway.guard.policy import Streaming
from gateway.guard.segments import reply_texts, tool_pieces

# How much of a text's beginning is kept for the refusal detector.
_HEAD_CHARACTERS = 600

_ENDS_SENTENCE = frozenset(".!?\u3002\uff01\uff1f")  # the last three end one in Chinese and Japanese


@dataclass(slots=True, eq=False)
class Channel:
    """One text that grows: a field of a choice, or one tool call's arguments.

    Of its `length` characters, `cleared` may go. A tool call starts at -1, so that one without arguments is held too.
    """

    index: int
    name: str
    tool: bool
    cleared: int
    length: int = 0
    head: str = ""
    final: bool = False
    quiet: bool = False
    said_before: int = 0
    chunks: int = 0
    sentence: bool = False
    checked: str = ""
    unchecked: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What a check looks at: all that is unchecked, with the text before it."""
        return self.checked + "".join(self.unchecked)

    @property
    def fresh(self) -> str:
        """The part of `text` that has not gone out."""
        return self.text[-(self.length - max(0, self.cleared)) :]


@dataclass(slots=True, eq=False)
class _Choice:
    channels: dict[str, Channel] = field(default_factory=dict)
    said: int = 0
    role: bool = False
    spoken: bool = False
    finished: bool = False
    reason: str | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """A chunk, its choices, and how far each text it adds to must be cleared before it may go."""

    chunk: Chunk
    pieces: Sequence[Mapping[str, Any]]
    ends: list[tuple[Channel, int]]
    came: float


class Window:
    """Push chunks; check the channels that this makes due; `clear` them; release."""

    def __init__(self, streaming: Streaming) -> None:
        self._window = streaming.window_tokens
        self._overlap = streaming.overlap_characters
        self._context = max(streaming.context_characters, streaming.overlap_characters)
        self._held: deque[_Held] = deque()
        self._choices: dict[int, _Choice] = {}

    def push(self, chunk: Chunk) -> list[Channel]:
        """Hold a chunk. Returns the channels that must be checked now. Raises `UpstreamBroken` when it is no chunk."""
        pieces = _pieces(chunk)
        ends: list[tuple[Channel, int]] = []
        due: list[Channel] = []
        for piece in pieces:
            index = piece.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice()
            delta = piece.get("delta")
            if delta:
                ends += [self._grow(choice, index, name, text, tool=False) for name, text in reply_texts(delta)]
                ends += [self._grow(choice, index, name, text, tool=True) for name, text in tool_pieces(delta)]
            if piece.get("finish_reason"):
                choice.reason = piece["finish_reason"]
                _finish(choice)
            due += self._due(choice)
        self._held.append(_Held(chunk, pieces, ends, time.perf_counter()))
        return due

    def end(self) -> list[Channel]:
        """The stream is over: all that is held becomes due."""
        for choice in self._choices.values():
            _finish(choice)
        return [channel for choice in self._choices.values() for channel in self._due(choice)]

    def clear(self, channel: Channel) -> None:
        """A check of the channel's `text` passed."""
        whole = channel.final or channel.quiet
        channel.cleared = max(channel.cleared, channel.length - (0 if whole else self._overlap))
        channel.checked = channel.text[-self._context :]
        channel.unchecked.clear()
        channel.chunks, channel.sentence = 0, False

    def release(self) -> tuple[list[Chunk], float | None]:
        """The chunks that may go, in order, and when the first of them that says anything came (`perf_counter`)."""
        released: list[Chunk] = []
        since: float | None = None
        while self._held:
            held = self._held[0]
            if any(end > channel.cleared for channel, end in held.ends):
                break
            self._held.popleft()
            released.append(held.chunk)
            for piece in held.pieces:
                choice = self._choices[piece.get("index", 0)]
                choice.role = True
                if piece.get("finish_reason"):
                    choice.finished = True
            if held.ends:
                since = since or held.came
                for channel, _ in held.ends:
                    self._choices[channel.index].spoken = True
        return released, since

    def open(self, expected: int) -> Iterator[tuple[int, bool, bool]]:
        """Choices whose end the client has not seen: index, whether they have begun, whether they have said a thing."""
        for index in sorted({*range(expected), *self._choices}):
            choice = self._choices.get(index) or _Choice()
            if not choice.finished:
                yield index, choice.role, choice.spoken

    def replies(self) -> list[Mapping[str, Any]]:
        """The choices so far, each with the beginning of its message, in the shape of a whole reply's."""
        return [
            {
                "finish_reason": choice.reason,
                "message": {name: channel.head for name, channel in choice.channels.items() if not channel.tool},
            }
            for choice in self._choices.values()
        ]

    def _grow(self, choice: _Choice, index: int, name: str, text: str, *, tool: bool) -> tuple[Channel, int]:
        channel = choice.channels.get(name)
        if channel is None:
            channel = choice.channels[name] = Channel(index, name, tool, cleared=-1 if tool else 0)
        if channel.length < _HEAD_CHARACTERS:
            channel.head += text
        channel.unchecked.append(text)
        channel.length += len(text)
        channel.chunks += 1
        channel.sentence = channel.sentence or _ends_sentence(text)
        channel.final = channel.quiet = False
        choice.said += len(text)
        channel.said_before = choice.said
        return channel, channel.length

    def _due(self, choice: _Choice) -> list[Channel]:
        due = []
        for channel in choice.channels.values():
            if channel.length == channel.cleared:
                continue
            if not channel.tool and choice.said - channel.said_before >= max(1, self._overlap):
                channel.quiet = True
            if not channel.unchecked:
                channel.cleared = channel.length if channel.final or channel.quiet else channel.cleared
            elif channel.final or channel.quiet or (not channel.tool and self._full(channel)):
                due.append(channel)
        return due

    def _full(self, channel: Channel) -> bool:
        """Whether there is enough for a check, and a check would let something go."""
        enough = channel.sentence or channel.chunks >= self._window
        return enough and channel.length - self._overlap > channel.cleared


def _finish(choice: _Choice) -> None:
    for channel in choice.channels.values():
        channel.final = True


def _pieces(chunk: Chunk) -> Sequence[Mapping[str, Any]]:
    """The choices of a chunk, each an object with an object for its delta, as the rest of this module takes them."""
    pieces = chunk.body.get("choices") or ()
    for piece in pieces:
        if not (
            isinstance(piece, dict)
            and isinstance(piece.get("delta") or {}, dict)
            and isinstance(piece.get("index", 0), int)
        ):
            raise UpstreamBroken("The model server's reply is no chat completion.")
    return pieces


def _ends_sentence(text: str) -> bool:
    shown = text.rstrip()
    return (shown != "" and shown[-1] in _ENDS_SENTENCE) or "\n" in text[len(shown) :]
