"""The streaming window: chunks are held, whole and in order, until what they say has been checked.

A check is due at the end of a sentence or after `window_tokens` chunks, whichever comes first. What a check has passed
is released up to the last characters of the overlap, so that a phrase no longer than that never leaks in parts;
tool-call arguments are held until they are whole. Chunks are never split or rewritten. While a text grows, its last
word is left out of checks: a rail that looks for whole words must not take half a word for one.

A text is one field of one choice. What is not covered: a phrase with as much of another field as the overlap in the
middle of it; it is found, but its first half may be out. Without that exception an answer would wait for the end of
the reply whenever the model's reasoning comes before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from gateway.call import Chunk, Moves, Piece, Reply, Said
from gateway.guard.policy import Streaming

# How much of a text's beginning is kept for the refusal detector.
_HEAD_CHARACTERS = 600

# Longer ones are not waited for.
_LONGEST_WORD = 32

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
    partial: bool = False
    checked: str = ""
    unchecked: list[str] = field(default_factory=list)

    @property
    def word(self) -> int:
        """How many characters of a word the text ends in that may go on; 0 once the text is whole."""
        if self.final or self.quiet:
            return 0
        count = 0
        for piece in chain(reversed(self.unchecked), (self.checked,)):
            for character in reversed(piece):
                if not _in_word(character):
                    return count
                count += 1
                if count > _LONGEST_WORD:  # a script without spaces, most often
                    return 0
        return count

    @property
    def text(self) -> str:
        """What a check looks at: all that is unchecked, with the text before it."""
        whole = self.checked + "".join(self.unchecked)
        return whole[: len(whole) - self.word]

    @property
    def fresh(self) -> str:
        """The part of `text` that has not gone out."""
        length = self.length - self.word - max(0, self.cleared)
        return self.text[-length:] if length > 0 else ""


@dataclass(slots=True, eq=False)
class _Choice:
    channels: dict[str, Channel] = field(default_factory=dict)
    said: int = 0
    reason: str | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """A chunk, and how far each text it adds to must be cleared before it may go."""

    chunk: Chunk
    ends: list[tuple[Channel, int]]
    came: float


class Window:
    """Push chunks; check the channels that this makes due; `clear` them; release.

    `reach` is the length of the longest phrase that the policy's rails look for, in characters: the overlap is never
    shorter.
    """

    def __init__(self, streaming: Streaming, reach: int = 0) -> None:
        self._window = streaming.window_tokens
        self._overlap = max(streaming.overlap_characters, reach)
        self._context = max(streaming.context_characters, self._overlap + _LONGEST_WORD)
        self._held: deque[_Held] = deque()
        self._choices: dict[int, _Choice] = {}

    def push(self, chunk: Chunk, moves: Moves) -> list[Channel]:
        """Hold a chunk that does this. Returns the channels that must be checked now."""
        touched: dict[int, None] = dict.fromkeys(moves.ends)
        ends: list[tuple[Channel, int]] = []
        for piece in moves.pieces:
            touched[piece.choice] = None
            ends.append(self._grow(piece))
        for index, reason in moves.ends.items():
            choice = self._choices.setdefault(index, _Choice())
            choice.reason = reason
            for channel in choice.channels.values():
                channel.final = True
        self._held.append(_Held(chunk, ends, time.perf_counter()))
        return [channel for index in touched for channel in self._due(self._choices[index])]

    def end(self, *, broken: bool = False) -> list[Channel]:
        """The stream is over: all that is held becomes due. Of a `broken` one tool calls do not: they are not whole."""
        for choice in self._choices.values():
            for channel in choice.channels.values():
                channel.final = channel.final or not (broken and channel.tool)
        return [channel for choice in self._choices.values() for channel in self._due(choice)]

    def clear(self, channel: Channel) -> None:
        """A check of the channel's `text` passed."""
        word = channel.word
        kept = 0 if channel.final or channel.quiet else self._overlap + word
        channel.cleared = max(channel.cleared, channel.length - kept)
        channel.partial = word > 0
        channel.checked = _tail(channel.checked + "".join(channel.unchecked), self._context)
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
            if held.ends:
                since = since or held.came
        return released, since

    def drop(self, choice: int, without: Callable[[Chunk], Chunk | None]) -> None:
        """Forget a choice; `without` takes it out of the chunks that are held."""
        self._choices.pop(choice, None)
        kept: deque[_Held] = deque()
        for held in self._held:
            chunk = without(held.chunk)
            if chunk is not None:
                ends = [(channel, end) for channel, end in held.ends if channel.index != choice]
                kept.append(_Held(chunk, ends, held.came))
        self._held = kept

    def replies(self) -> list[Reply]:
        """The choices so far, each with the beginning of its texts."""
        return [
            Reply(
                [Said(channel.name, (), channel.head) for channel in choice.channels.values() if not channel.tool],
                choice.reason == "content_filter",
            )
            for choice in self._choices.values()
        ]

    def _grow(self, piece: Piece) -> tuple[Channel, int]:
        choice = self._choices.setdefault(piece.choice, _Choice())
        channel = choice.channels.get(piece.name)
        if channel is None:
            channel = Channel(piece.choice, piece.name, piece.tool, cleared=-1 if piece.tool else 0)
            choice.channels[piece.name] = channel
        text = piece.text
        if text or not piece.final:
            if channel.length < _HEAD_CHARACTERS:
                channel.head += text
            channel.unchecked.append(text)
            channel.length += len(text)
            channel.chunks += 1
            channel.sentence = channel.sentence or _ends_sentence(text)
            channel.final = channel.quiet = False
            choice.said += len(text)
            channel.said_before = choice.said
        channel.final = channel.final or piece.final
        return channel, channel.length

    def _due(self, choice: _Choice) -> list[Channel]:
        due = []
        for channel in choice.channels.values():
            if channel.length == channel.cleared:
                continue
            if not channel.tool and choice.said - channel.said_before >= max(1, self._overlap):
                channel.quiet = True
            if not channel.unchecked and not channel.partial:
                channel.cleared = channel.length if channel.final or channel.quiet else channel.cleared
            elif channel.final or channel.quiet or (not channel.tool and self._full(channel)):
                due.append(channel)
        return due

    def _full(self, channel: Channel) -> bool:
        """Whether there is enough for a check, and a check would let something go."""
        enough = channel.sentence or channel.chunks >= self._window
        return enough and channel.length - channel.word - self._overlap > channel.cleared


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _tail(text: str, most: int) -> str:
    """The last `most` characters, less the rest of a word at their beginning, which is no word of its own."""
    if len(text) <= most:
        return text
    begin = len(text) - most
    limit = begin + _LONGEST_WORD
    while begin < limit and _in_word(text[begin - 1]) and _in_word(text[begin]):
        begin += 1
    return text[begin:] if begin < limit else text[-most:]


def _ends_sentence(text: str) -> bool:
    shown = text.rstrip()
    return (shown != "" and shown[-1] in _ENDS_SENTENCE) or "\n" in text[len(shown) :]
