"""The data path, top to bottom: triage, input rails, the model, output rails. Nothing blocked gets past `guard`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gateway.call import Call, Chunk, Completion
from gateway.guard.rails import Guard
from gateway.guard.refusal import refuse, refuse_stream
from gateway.guard.verdict import Blocked, Verdict
from gateway.record.observation import Observation
from gateway.upstream.base import Upstream


@dataclass(frozen=True, slots=True)
class Pipeline:
    guard: Guard
    upstream: Upstream

    async def answer(self, call: Call, seen: Observation) -> Completion:
        """The whole reply, or a refusal in its shape."""
        try:
            plan = await self.guard.plan(call, seen)
            call = await self.guard.check_input(call, plan, seen)
            with seen.time("upstream"):
                completion = await self.upstream.complete(call)
            return await self.guard.check_output(call, completion, plan, seen)
        except Blocked as block:
            return refuse(call, block.verdict, self.guard.policy, seen)

    async def stream(self, call: Call, seen: Observation) -> AsyncGenerator[Chunk, None]:
        """The reply in chunks, each checked before it is released; a refusal ends the stream in its shape."""
        try:
            plan = await self.guard.plan(call, seen)
            call = await self.guard.check_input(call, plan, seen)
        except Blocked as block:
            for chunk in refuse_stream(call, block.verdict, self.guard.policy, seen):
                yield chunk
            return
        async with (
            aclosing(self.upstream.stream(call)) as chunks,
            aclosing(self.guard.check_stream(call, chunks, plan, seen)) as checked,
        ):
            async for chunk in checked:
                yield chunk

    async def check(self, call: Call, reply: Completion | None, seen: Observation) -> Call | Completion | Verdict:
        """The checks alone: what would go to the model, what of this reply to the client, or why neither."""
        try:
            plan = await self.guard.plan(call, seen)
            call = await self.guard.check_input(call, plan, seen, guide=False)
        except Blocked as block:
            return block.verdict
        return call if reply is None else await self.guard.check_output(call, reply, plan, seen)
