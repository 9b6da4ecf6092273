"""The data path, top to bottom: triage, input rails, the model, output rails. Nothing blocked gets past `guard`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gateway.chat import Chat, Chunk, Completion
from gateway.guard.rails import Guard
from gateway.guard.refusal import refuse, refuse_stream
from gateway.guard.verdict import Blocked
from gateway.record.observation import Observation
from gateway.upstream.base import Upstream


@dataclass(frozen=True, slots=True)
class Pipeline:
    guard: Guard
    upstream: Upstream

    async def answer(self, chat: Chat, seen: Observation) -> Completion:
        """The whole reply, or a refusal in its shape."""
        try:
            plan = await self.guard.plan(chat, seen)
            chat = await self.guard.check_input(chat, plan, seen)
            with seen.time("upstream"):
                completion = await self.upstream.complete(chat)
            return await self.guard.check_output(chat, completion, plan, seen)
        except Blocked as block:
            return refuse(chat, block.verdict, self.guard.policy, seen)

    async def stream(self, chat: Chat, seen: Observation) -> AsyncGenerator[Chunk, None]:
        """The reply in chunks, each checked before it is released; a refusal ends the stream in its shape."""
        try:
            plan = await self.guard.plan(chat, seen)
            chat = await self.guard.check_input(chat, plan, seen)
        except Blocked as block:
            for chunk in refuse_stream(chat, block.verdict, self.guard.policy, seen):
                yield chunk
            return
        async with (
            aclosing(self.upstream.stream(chat)) as chunks,
            aclosing(self.guard.check_stream(chat, chunks, plan, seen)) as checked,
        ):
            async for chunk in checked:
                yield chunk
