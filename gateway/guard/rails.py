"""The guard: a policy in force. It plans a route, checks what goes in, and checks what comes out before release."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from gateway.chat import Chat, Chunk, Completion, Message
from gateway.guard.checks import Checks, Rewrite, Turn
from gateway.guard.plan import merge, units
from gateway.guard.refusal import NO_USAGE, guardrails, refuse_choice
from gateway.guard.segments import (
    new_segments,
    reply_texts,
    rewritten,
    tool_arguments,
    turns_before,
    with_arguments,
    with_text,
)
from gateway.guard.stream import Stream
from gateway.guard.verdict import Blocked, Plan, Verdict
from gateway.record.observation import Observation


class Guard:
    """One policy with its lanes and classifiers. Stateless between requests but for the judge's memory."""

    def __init__(self, checks: Checks) -> None:
        self.policy = checks.policy
        self._checks = checks

    async def warm(self) -> None:
        """Make the first request as fast as the next."""
        await self._checks.warm()

    async def close(self) -> None:
        """Let go of the engines."""
        await self._checks.close()

    async def plan(self, chat: Chat, seen: Observation) -> Plan:
        """Triage the new turns. Raises `Blocked` on route `refuse`, `RailFailed` when triage fails closed."""
        with seen.time("triage"):
            found = units(new_segments(chat.messages), turns_before(chat.messages))
            seen.asked("\n\n".join(unit.text for unit in found))
            judged = await self._checks.judge(found, seen)
            plan = merge(self.policy, found, judged) if judged is not None else Plan(route="review", tier="failed")
        seen.triaged(plan.label, plan.route, plan.score, plan.tier, plan.category, plan.scores)
        if plan.route == "refuse":
            reason = f"{plan.label} {plan.score:.2f}"
            self._block(self._checks.verdict("triage", "triage", plan.category, reason), seen)
        limit = self.policy.rules.toxicity.input
        if limit is not None and plan.toxicity >= limit:
            self._block(self._checks.toxic("input", plan.toxicity, plan.category), seen)
        return plan

    async def check_input(self, chat: Chat, plan: Plan, seen: Observation) -> Chat:
        """Input rails on the new texts, rewrites put back in place, and the policy's guidance for the route."""
        turn = Turn("", plan, seen)
        messages = chat.messages
        with seen.time("input_rails"):
            segments = new_segments(messages)
            said = [segment for segment in segments if segment.kind == "user"]
            # First as triage saw it, for a request can be spread over turns; apart only where a rewrite needs a place.
            if len(said) > 1 and not await self._input("\n".join(segment.text for segment in said), turn):
                segments = [segment for segment in segments if segment.kind != "user"]
            for segment in segments:
                rewrite = await self._input(segment.text, turn)
                if rewrite is not None:
                    messages = rewritten(messages, segment, rewrite.text)
                    seen.modified("input", rewrite.rail)
        if messages != chat.messages:
            chat = chat.with_messages(messages)
        if self._checks.shadow:
            return chat
        guidance = self.policy.guidance(plan.route, plan.category)
        return (chat.with_guidance(guidance) if guidance is not None else chat).with_route(plan.route)

    async def check_output(self, chat: Chat, completion: Completion, plan: Plan, seen: Observation) -> Completion:
        """Output rails on every choice; one that is blocked is replaced, the others stay as they came."""
        body = completion.body
        came = body.get("choices") or []
        turn = Turn(_user(chat), plan, seen)
        choices: list[Any] = []
        verdicts: list[Verdict] = []
        seen.tokens(body.get("usage"))
        with seen.time("output_rails"):
            for choice in came:
                message = await self._message(choice.get("message") or {}, turn)
                if isinstance(message, Verdict):
                    verdicts.append(message)
                    choices.append(refuse_choice(choice, message, self.policy))
                elif message is not None:  # its logprobs would still spell out what was there
                    choices.append({**choice, "message": message, "logprobs": None})
                else:
                    choices.append(choice)
        if verdicts:
            usage = body.get("usage") or dict(NO_USAGE)
            why = guardrails(verdicts[0], self.policy, seen)
            return Completion({**body, "choices": choices, "usage": usage, "guardrails": why})
        self._checks.count_own_refusal(came, plan, seen)
        return completion if choices == came else Completion({**body, "choices": choices})

    def check_stream(
        self, chat: Chat, chunks: AsyncIterator[Chunk], plan: Plan, seen: Observation
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks, each released only when what it says has been checked; on a block, the refusal's chunks."""
        return Stream(self._checks, chat, Turn(_user(chat), plan, seen)).checked(chunks)

    async def _input(self, text: str, turn: Turn) -> Rewrite | None:
        found = await self._checks.of_input(text, turn)
        if isinstance(found, Verdict):
            raise Blocked(found)
        return found

    async def _message(self, message: Message, turn: Turn) -> Message | Verdict | None:
        """The message of one choice as the rails rewrote it, why it must not go out, or None: as it came."""
        changed: Message | None = None
        for name, text in reply_texts(message):
            found = await self._checks.of_reply(text, turn, "output")
            if isinstance(found, Verdict):
                return found
            if found is not None:
                changed = with_text(changed or message, name, found.text)
                turn.seen.modified("output", found.rail)
        for position, text in tool_arguments(message):
            found = await self._checks.of_reply(text, turn, "tool")
            if isinstance(found, Verdict):
                return found
            if found is not None:
                changed = with_arguments(changed or message, position, found.text)
                turn.seen.modified("tool", found.rail)
        return changed

    def _block(self, verdict: Verdict, seen: Observation) -> None:
        if self._checks.refused(verdict, seen):
            raise Blocked(verdict)


def _user(chat: Chat) -> str:
    """What the reply answers."""
    return "\n\n".join(segment.text for segment in new_segments(chat.messages))
