"""The guard: a policy in force. It plans a route, checks what goes in, and checks what comes out before release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from classifiers.message import Judgement, Message
from gateway.call import Body, Call, Chunk, Completion, Reply, Segment, Words
from gateway.forms.places import put
from gateway.guard.checks import Checks, Rewrite, Turn
from gateway.guard.explanation import Explanation, explain
from gateway.guard.plan import asked, groups, merge
from gateway.guard.refusal import guardrails, words
from gateway.guard.stream import Stream
from gateway.guard.verdict import Blocked, Plan, Stage, Verdict
from gateway.record.observation import Observation


class Guard:
    """One policy with its lanes and classifiers. Stateless between requests but for the judge's memory.

    `made`: when, in seconds since 1970.
    """

    def __init__(self, checks: Checks) -> None:
        self.policy = checks.policy
        self._checks = checks
        self.made = time.time()
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def hold(self) -> None:
        """A request has begun with this guard."""
        self._users += 1
        self._unused.clear()

    def release(self) -> None:
        """A request that held it has ended."""
        self._users -= 1
        if not self._users:
            self._unused.set()

    async def unused(self) -> None:
        """Returns when no request holds it."""
        await self._unused.wait()

    async def warm(self) -> None:
        """Make the first request as fast as the next."""
        await self._checks.warm()

    async def close(self) -> None:
        """Let go of the engines."""
        await self._checks.close()

    async def judge(self, texts: Sequence[str], seen: Observation) -> list[Judgement]:
        """What triage thinks of each text, whatever the policy makes of it. Raises `RailFailed`."""
        return await self._checks.judge([Message(text) for text in texts], seen) or []

    async def explain(self, call: Call, seen: Observation) -> Explanation:
        """Why triage made of a request what it did. Raises `RailFailed`."""
        return await explain(self._checks, call, seen)

    async def plan(self, call: Call, seen: Observation) -> Plan:
        """Triage what is new. Raises `Blocked` on route `refuse`, `RailFailed` when triage fails closed."""
        seen.carries(call.form.unchecked(call.body))
        with seen.time("triage"):
            found = asked(call)
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

    async def check_input(self, call: Call, plan: Plan, seen: Observation, *, guide: bool = True) -> Call:
        """Input rails on the new texts, rewrites put back in place, and the policy's guidance for the route."""
        turn = Turn("", plan, seen)
        body = call.body
        with seen.time("input_rails"):
            if seen.unchecked and self.policy.rules.unchecked_content == "refuse":
                reason = f"no check reads {', '.join(sorted(set(seen.unchecked)))}"
                self._block(self._checks.verdict("input", "unchecked_content", "rail", reason), seen)
            for segment in [
                one for group in groups(call.form.segments(body)) for one in await self._apart(group, turn)
            ]:
                rewrite = await self._input(segment.text, turn)
                if rewrite is not None:
                    body = put(body, segment.path, rewrite.text)
                    seen.modified("input", rewrite.rail)
        if self._checks.shadow:
            return call.with_body(body)
        guidance = self.policy.guidance(plan.route, plan.category)
        return call.with_body(call.form.guided(body, guidance) if guidance is not None else body).with_route(plan.route)

    async def check_output(self, call: Call, completion: Completion, plan: Plan, seen: Observation) -> Completion:
        """Output rails on every choice; one that is blocked is replaced, the others stay as they came."""
        form, body = call.form, completion.body
        turn = Turn(_user(call), plan, seen)
        verdicts: dict[int, Verdict] = {}
        seen.tokens(form.usage(body))
        seen.told = completion.headers
        replies = form.replies(body)
        with seen.time("output_rails"):
            for position, reply in enumerate(replies):
                verdict, body = await self._reply(call, reply, body, turn)
                if verdict is not None:
                    verdicts[position] = verdict
        if verdicts:
            said: dict[int, Words] = {place: words(verdict, self.policy) for place, verdict in verdicts.items()}
            why = guardrails(next(iter(verdicts.values())), self.policy, seen)
            return Completion(form.refused(body, said, why))
        self._checks.count_own_refusal(replies, plan, seen)
        return completion if body is completion.body else Completion(body)

    def check_stream(
        self, call: Call, chunks: AsyncIterator[Chunk], plan: Plan, seen: Observation
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks, each released only when what it says has been checked; on a block, the refusal's chunks."""
        return Stream(self._checks, call, Turn(_user(call), plan, seen)).checked(chunks)

    async def _input(self, text: str, turn: Turn, fast: bool = False) -> Rewrite | None:
        found = await self._checks.of_input(text, turn, fast=fast)
        if isinstance(found, Verdict):
            raise Blocked(found)
        return found

    async def _apart(self, group: list[Segment], turn: Turn) -> list[Segment]:
        """First what the user said as a whole, for a request can be spread over turns and parts.

        Returns what must be checked by itself: tool results, and the user's texts where a rewrite needs a place.
        """
        said = [segment.text for segment in group if segment.kind == "user"]
        if len(said) < 2:
            return group
        rewrite = await self._input("\n".join(said), turn)
        for between in ("", " "):  # servers join parts as they like
            await self._input(between.join(said), turn, fast=True)
        return group if rewrite is not None else [segment for segment in group if segment.kind != "user"]

    async def _reply(self, call: Call, reply: Reply, body: Body, turn: Turn) -> tuple[Verdict | None, Body]:
        """Why a choice must not go out, or the body with what the rails rewrote in it."""
        for said in reply.said:
            stage: Stage = "tool" if said.tool else "output"
            found = await self._checks.of_reply(said.text, turn, stage)
            if isinstance(found, Verdict):
                return found, body
            if found is not None:
                body = call.form.rewritten(body, said, found.text)
                turn.seen.modified(stage, found.rail)
        return None, body

    def _block(self, verdict: Verdict, seen: Observation) -> None:
        if self._checks.refused(verdict, seen):
            raise Blocked(verdict)


def _user(call: Call) -> str:
    """What the reply answers."""
    return "\n\n".join(segment.text for segment in call.form.segments(call.body))
