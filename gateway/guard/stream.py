"""A streamed reply, checked before it is released: the window decides when, the checks decide what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from gateway.call import Body, Call, Chunk
from gateway.errors import UpstreamError
from gateway.guard.checks import Checks, Rewrite, Turn
from gateway.guard.refusal import guardrails, words
from gateway.guard.verdict import Stage, Verdict
from gateway.guard.window import Channel, Window

# How long a blocked stream is still read for the usage that its client asked for.
_USAGE_SECONDS = 2.0


class Stream:
    """One reply on its way."""

    def __init__(self, checks: Checks, call: Call, turn: Turn) -> None:
        self._window = Window(checks.policy.rules.streaming, checks.reach)
        self._tape = call.form.tape(call)
        self._checks = checks
        self._call = call
        self._turn = turn
        self._usage: Body | None = None
        self._refused: set[int] = set()
        self._silent = True

    async def checked(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        """The chunks, each released only when what it says has been checked; on a block, the refusal's chunks.

        A block ends its choice alone. When the model server fails in the middle, what has come and passes is released
        before the failure is raised.
        """
        seen = self._turn.seen
        failure: UpstreamError | None = None
        try:
            while True:
                try:
                    chunk = await self._next(chunks)
                    due = self._window.end() if chunk is None else self._push(chunk)
                except UpstreamError as error:
                    chunk, failure = None, error
                    due = self._window.end(broken=True)
                for channel in due:
                    for frame in await self._settle(channel):
                        yield frame
                for passed in self._released():
                    began = time.perf_counter()
                    yield passed
                    seen.client_seconds += time.perf_counter() - began
                if failure is not None:
                    raise failure
                if chunk is None or (self._refused and not self._tape.open()):
                    break
            for frame in await self._end(chunks):
                yield frame
        finally:
            seen.tokens(self._usage)

    async def _next(self, chunks: AsyncIterator[Chunk]) -> Chunk | None:
        began = time.perf_counter()
        chunk = await anext(chunks, None)
        self._turn.seen.upstream_seconds += time.perf_counter() - began
        self._turn.seen.answered = True
        if chunk is not None:
            self._turn.seen.told = chunk.headers
            self._usage = self._call.form.usage(chunk.body) or self._usage  # of several, the last counts all
        return chunk

    def _push(self, chunk: Chunk) -> list[Channel]:
        moves = self._tape.read(chunk)
        self._turn.seen.spoken += sum(len(piece.text) for piece in moves.pieces if not piece.final)
        kept = self._tape.without(chunk, self._refused)
        if kept is None:
            return []
        if kept is not chunk:
            chunk, moves = kept, self._tape.read(kept)
        return self._window.push(chunk, moves)

    async def _settle(self, channel: Channel) -> list[Chunk]:
        """Check a text that is due: it is cleared, or its choice is dropped and ends in these chunks."""
        if channel.index in self._refused:
            return []
        verdict = await self._check(channel)
        if verdict is None:
            self._window.clear(channel)
            return []
        self._refused.add(channel.index)
        self._window.drop(channel.index, lambda chunk: self._tape.without(chunk, self._refused))
        policy = self._checks.policy
        if channel.index not in self._tape.open():  # the client has been sent the end of it
            return []
        why = guardrails(verdict, policy, self._turn.seen)
        return self._tape.refuse(channel.index, words(verdict, policy), why)

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

    def _released(self) -> list[Chunk]:
        released, since = self._window.release()
        if since is not None:
            seen, now = self._turn.seen, time.perf_counter()
            seen.metrics.observe("stream_holdback_seconds", now - since)
            if self._silent:
                seen.metrics.observe("time_to_first_token_seconds", now - seen.started)
                self._silent = False
        for chunk in released:
            self._tape.sent(chunk)
        return released

    async def _end(self, chunks: AsyncIterator[Chunk]) -> list[Chunk]:
        """After refusals what is missing of the end; otherwise the model may have refused by itself."""
        if not self._refused:
            self._checks.count_own_refusal(self._window.replies(), self._turn.plan, self._turn.seen)
            return []
        if self._call.wants_usage:
            await self._read_usage(chunks)
        return self._tape.close(self._usage)

    async def _read_usage(self, chunks: AsyncIterator[Chunk]) -> None:
        """Read on for the usage, for a moment; where it does not come, what came before it counts."""
        try:
            async with asyncio.timeout(_USAGE_SECONDS):
                while await self._next(chunks) is not None:
                    pass
        except Exception:  # noqa: BLE001  the reply is over; how its upstream ends no longer matters
            pass
