"""A streamed reply, checked before it is released: the window decides when, the checks decide what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from gateway.chat import Chat, Chunk
from gateway.guard.checks import Checks, Rewrite, Turn
from gateway.guard.refusal import NO_USAGE, Frames
from gateway.guard.verdict import Stage, Verdict
from gateway.guard.window import Channel, Window

# How long a blocked stream is still read for the usage that its client asked for.
_USAGE_SECONDS = 2.0


class Stream:
    """One reply on its way."""

    def __init__(self, checks: Checks, chat: Chat, turn: Turn) -> None:
        self._window = Window(checks.policy.rules.streaming)
        self._checks = checks
        self._chat = chat
        self._turn = turn
        self._frames: Frames | None = None
        self._usage: dict[str, Any] | None = None
        self._silent = True

    async def checked(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        """The chunks, each released only when what it says has been checked; on a block, the refusal's chunks."""
        seen = self._turn.seen
        try:
            while True:
                chunk = await self._next(chunks)
                due = self._window.push(chunk) if chunk is not None else self._window.end()
                for channel in due:
                    verdict = await self._check(channel)
                    if verdict is not None:
                        for frame in self._refusal(verdict):
                            yield frame
                        if self._chat.wants_usage:
                            yield await self._last_usage(chunks)
                        return
                    self._window.clear(channel)
                released, since = self._window.release()
                if since is not None:
                    self._record(since)
                for passed in released:
                    began = time.perf_counter()
                    yield passed
                    seen.client_seconds += time.perf_counter() - began
                if chunk is None:
                    self._checks.count_own_refusal(self._window.replies(), self._turn.plan, seen)
                    return
        finally:
            seen.tokens(self._usage)

    async def _next(self, chunks: AsyncIterator[Chunk]) -> Chunk | None:
        began = time.perf_counter()
        chunk = await anext(chunks, None)
        self._turn.seen.upstream_seconds += time.perf_counter() - began
        if chunk is not None:
            self._usage = chunk.body.get("usage") or self._usage  # of several, the last counts all
            self._frames = self._frames or Frames(self._chat, chunk.body)
        return chunk

    async def _check(self, channel: Channel) -> Verdict | None:
        text = channel.text
        if not text:
            return None
        stage: Stage = "tool" if channel.tool else "output"
        with self._turn.seen.time("output_rails"):
            found = await self._checks.of_reply(text, self._turn, stage, channel.fresh)
        if not isinstance(found, Rewrite):
            return found
        # Part of the text may be out, and the rest lies in chunks that are not ours to cut.
        verdict = self._checks.verdict(stage, found.rail, "rail", "it rewrites, which a stream cannot")
        return verdict if self._checks.refused(verdict, self._turn.seen) else None

    def _record(self, since: float) -> None:
        seen, now = self._turn.seen, time.perf_counter()
        seen.metrics.observe("stream_holdback_seconds", now - since)
        if self._silent:
            seen.metrics.observe("time_to_first_token_seconds", now - seen.started)
            self._silent = False

    def _refusal(self, verdict: Verdict) -> Iterator[Chunk]:
        """What is held is dropped; every choice that the client has not seen the end of ends in the refusal."""
        policy, frames = self._checks.policy, self._frames or Frames(self._chat)
        for index, begun, spoken in self._window.open(self._chat.choices):
            if not begun:
                yield frames.delta(index, {"role": "assistant", "content": ""})
            elif spoken and policy.rules.refusal_style != "refusal":
                yield frames.delta(index, {"content": "\n\n"})
            yield frames.refusal(index, verdict, policy)
            yield frames.end(index, verdict, policy, self._turn.seen)

    async def _last_usage(self, chunks: AsyncIterator[Chunk]) -> Chunk:
        """Read on for the usage, for a moment; where it does not come, what came before it counts."""
        frames = self._frames or Frames(self._chat)
        try:
            async with asyncio.timeout(_USAGE_SECONDS):
                while await self._next(chunks) is not None:
                    pass
        except Exception:  # noqa: BLE001  the reply is over; how its upstream ends no longer matters
            pass
        return frames.usage(self._usage or NO_USAGE)
