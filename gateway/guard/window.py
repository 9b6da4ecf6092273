"""The streaming window: chunks are held, whole and in order, until what they say has been checked.

A check is due at the end of a sentence or after `window_tokens` chunks, whichever comes first. What a check has passed
is released up to the last `overlap_characters`, so that a phrase no longer than that never leaks in parts; tool-call
arguments are held until their choice is finished. Chunks are never split or rewritten.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.chat import Chunk
from gateway.guard.policy import Streaming
from gateway.guard.segments import reply_texts

_SENTENCE_END = re.compile(r"[.!?\n]\s*$")


@dataclass(slots=True)
class Channel:
    """One text that grows: a field of a choice, or one tool call's arguments."""

    index: int
    name: str
    tool: bool
    tail: str = ""
    length: int = 0
    cleared: int = 0
    since: int = 0
    sentence: bool = False
    final: bool = False

    def due(self, streaming: Streaming) -> bool:
        if self.final:
            return self.cleared < self.length
        if self.tool or self.length - streaming.overlap_characters <= self.cleared:
            return False
        return self.sentence or self.since >= streaming.window_tokens


@dataclass(slots=True)
class _Held:
    chunk: Chunk
    ends: list[tuple[Channel, int]]
    since: float = field(default_factory=time.perf_counter)


class Window:
    """Push chunks; check the channels that are due; `clear` them; release."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._held: deque[_Held] = deque()
        self._channels: dict[tuple[int, str], Channel] = {}
        self.roles: set[int] = set()
        self.spoken: set[int] = set()
        self.finished: set[int] = set()

    def push(self, chunk: Chunk) -> None:
        ends: list[tuple[Channel, int]] = []
        for choice in chunk.body.get("choices") or []:
            index = choice.get("index", 0)
            delta = choice.get("delta") or {}
            for name, text in reply_texts(delta):
                ends.append(self._grow(index, name, text, tool=False))
            for call in _calls(delta):
                ends.append(self._grow(index, call[0], call[1], tool=True))
            if choice.get("finish_reason"):
                for channel in self._channels.values():
                    channel.final = channel.final or channel.index == index
        self._held.append(_Held(chunk, ends))

    def _grow(self, index: int, name: str, text: str, *, tool: bool) -> tuple[Channel, int]:
        channel = self._channels.setdefault((index, name), Channel(index, name, tool, cleared=-1 if tool else 0))
        channel.tail += text
        if not tool:
            channel.tail = channel.tail[-max(self._streaming.context_characters, 2 * len(text)) :]
        channel.length += len(text)
        channel.since += 1
        channel.sentence = channel.sentence or _SENTENCE_END.search(text) is not None
        return channel, channel.length

    def end(self) -> None:
        """The stream is over: all that is held becomes due."""
        for channel in self._channels.values():
            channel.final = True

    def due(self) -> list[Channel]:
        return [channel for channel in self._channels.values() if channel.due(self._streaming)]

    def clear(self, channel: Channel) -> None:
        """A check of the channel's `tail` passed."""
        channel.cleared = channel.length if channel.final else channel.length - self._streaming.overlap_characters
        channel.since, channel.sentence = 0, False

    def release(self) -> Iterator[tuple[Chunk, float]]:
        """The chunks that may go, in order, each with the seconds it was held."""
        while self._held and all(end <= channel.cleared for channel, end in self._held[0].ends):
            held = self._held.popleft()
            for choice in held.chunk.body.get("choices") or []:
                index = choice.get("index", 0)
                self.roles.add(index)
                if choice.get("finish_reason"):
                    self.finished.add(index)
            self.spoken |= {channel.index for channel, _ in held.ends}
            yield held.chunk, time.perf_counter() - held.since


def _calls(delta: dict[str, object]) -> list[tuple[str, str]]:
    """The pieces of tool-call arguments in a delta: a name for the call, and the piece."""
    found: list[tuple[str, str]] = []
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") or call.get("custom") or {}
        # A call without arguments yet is held too: its name alone would tell the client to act.
        piece = function.get("arguments") or function.get("input") or ""
        found.append((f"tool_calls.{call.get('index', 0)}", f"{piece}"))
    legacy = delta.get("function_call")
    if isinstance(legacy, dict):
        found.append(("function_call", str(legacy.get("arguments") or "")))
    return found
