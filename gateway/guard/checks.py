"""The checks of a policy on one text: its lanes, and toxicity; with fail modes, shadow mode and the counting.

What a check finds is a `Verdict` (it must not pass), a `Rewrite` (it may, changed) or None (it may, as it is).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from classifiers.explain import Weight
from classifiers.message import Judgement, Message
from gateway.call import Reply
from gateway.errors import RailFailed
from gateway.forms.places import strings
from gateway.guard.judge import Judge
from gateway.guard.lane import Check, Direction, Lane, RailError
from gateway.guard.policy import Policy
from gateway.guard.verdict import SOURCES, Plan, Stage, Verdict
from gateway.record.observation import Observation, Step

# Names of the texts that are the answer itself, and not reasoning: of chats, completions and streamed responses.
_SHOWN = ("content", "text", "response.output_text")


_LOT = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """What all checks of one request share. `user` is what the reply answers."""

    user: str
    plan: Plan
    seen: Observation


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rail changed the text."""

    rail: str
    text: str


class Refusals(Protocol):
    def refuses(self, text: str) -> bool:
        """Whether a reply reads as the model's own refusal."""


class Checks:
    """One policy's checks. Stateless between requests but for the judge's memory."""

    def __init__(
        self,
        policy: Policy,
        lanes: tuple[Lane, Lane],
        judge: Judge,
        refusals: Refusals,
        triage_timeout_seconds: float,
    ) -> None:
        self.policy = policy
        self.shadow = policy.rules.mode == "shadow"
        self._fast, self._colang = lanes
        self._judge = judge
        self._refusals = refusals
        self._triage_timeout_seconds = triage_timeout_seconds
        self.reach = max(lane.reach for lane in lanes)

    async def warm(self) -> None:
        """Run every lane and the classifier once."""
        await asyncio.gather(self._fast.warm(), self._colang.warm(), self._judge.score_reply("Hello"))

    async def close(self) -> None:
        """Let go of the lanes' engines. The judge is shared with other policies, and its owner's to close."""
        await asyncio.gather(self._fast.close(), self._colang.close())

    async def judge(self, messages: Sequence[Message], seen: Observation) -> list[Judgement] | None:
        """Triage's judgement of each message; None when triage failed, and its fail mode is open.

        Many are judged some at a time, each lot in the time that triage has.
        """
        judged: list[Judgement] = []
        try:
            for begin in range(0, len(messages), _LOT):
                async with asyncio.timeout(self._triage_timeout_seconds):
                    lot = messages[begin : begin + _LOT]
                    judged += await asyncio.gather(
                        *(self._judge.score(replace(one, text=whole(one.text))) for one in lot)
                    )
        except Exception as error:  # noqa: BLE001  the seam of a rail
            self._failed("triage", _name(error), seen)
            return None
        return judged

    async def words(self, message: Message, label: str) -> list[Weight]:
        """The words that moved a label's score; a second of one core, on a thread of its own."""
        return await self._judge.explain(replace(message, text=whole(message.text)), label)

    async def of_input(self, text: str, turn: Turn, *, fast: bool = False) -> Verdict | Rewrite | None:
        """The input rails on one new text; of a `fast` look, those of the fast lane."""
        return await self._lanes("input", whole(text), turn, "input", fast=fast)

    async def of_reply(self, text: str, turn: Turn, stage: Stage, fresh: str | None = None) -> Verdict | Rewrite | None:
        """The output rails on one text of the reply, then its toxicity, of which only the `fresh` part counts."""
        text = whole(text)
        found = await self._lanes("output", text, turn, stage)
        meant = unescaped(text) if stage == "tool" and found is None else None
        if meant is not None:
            found, fresh = await self._meant(meant, turn), meant
        if isinstance(found, Verdict):
            return found
        judged = found.text if found is not None else whole(fresh) if fresh is not None else text
        return await self._toxicity(judged, turn, stage) or found

    async def _meant(self, text: str, turn: Turn) -> Verdict | None:
        """The output rails on what the arguments of a tool's call mean: in JSON an escape can hide any letter."""
        found = await self._lanes("output", text, turn, "tool")
        if not isinstance(found, Rewrite):
            return found
        verdict = self.verdict("tool", found.rail, "rail", "it rewrites what is written in escapes")
        return verdict if self.refused(verdict, turn.seen) else None

    async def _lanes(
        self, direction: Direction, text: str, turn: Turn, stage: Stage, *, fast: bool = False
    ) -> Verdict | Rewrite | None:
        rewrite: Rewrite | None = None
        for lane in (self._fast,) if fast else self._of_route(turn.plan):
            check = await self._run(lane, direction, text, turn)
            if check.decision == "block":
                verdict = self._rail_verdict(stage, check, turn.plan, lane)
                if self.refused(verdict, turn.seen):
                    return verdict
            elif check.decision == "modify" and not self.shadow:
                text = check.content or ""
                rewrite = Rewrite(check.rail, text)
        return rewrite

    def _of_route(self, plan: Plan) -> tuple[Lane, ...]:
        return (self._fast, self._colang) if plan.route in self.policy.rules.colang_routes else (self._fast,)

    async def _run(self, lane: Lane, direction: Direction, text: str, turn: Turn) -> Check:
        user, reply = (text, None) if direction == "input" else (turn.user or " ", text)
        seconds = self.policy.rules.rail_timeout_seconds
        began, check, rail = time.perf_counter(), None, ""
        try:
            check = await lane.check(direction, user, reply, turn.plan.context(), seconds)
            rail = check.rail
            return check
        except RailError as error:
            rail = error.rail
            self._failed(error.rail, error.error, turn.seen)
            return Check("pass")
        finally:
            if turn.seen.steps is not None and lane.flows[direction]:
                turn.seen.ran(_step(direction, lane, began, check.decision if check is not None else "error", rail))

    async def _toxicity(self, text: str, turn: Turn, stage: Stage) -> Verdict | None:
        rules = self.policy.rules.toxicity
        limit = rules.output if turn.plan.route in rules.output_routes else None
        if limit is None:
            return None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.policy.rules.rail_timeout_seconds):
                judgement = await self._judge.score_reply(text)
        except Exception as error:  # noqa: BLE001  the seam of a rail
            self._failed("toxicity", _name(error), turn.seen)
            return None
        passed = judgement.toxicity < limit
        if turn.seen.steps is not None:
            taken = round((time.perf_counter() - began) * 1e3, 2)
            turn.seen.ran(Step("output", "triage", ("toxicity",), taken, "pass" if passed else "block"))
        if passed:
            return None
        verdict = self.toxic(stage, judgement.toxicity, judgement.category)
        return verdict if self.refused(verdict, turn.seen) else None

    def refused(self, verdict: Verdict, seen: Observation) -> bool:
        """Count a refusal; whether it is carried out (not in shadow mode)."""
        source = SOURCES[verdict.stage]
        seen.refused(verdict.stage, verdict.rail, verdict.category, source, shadow=self.shadow)
        return not self.shadow

    def verdict(self, stage: Stage, rail: str, category: str, reason: str) -> Verdict:
        return Verdict(stage, rail, category, f"{rail}: {reason}", self.policy.refusal(category))

    def toxic(self, stage: Stage, toxicity: float, category: str) -> Verdict:
        return self.verdict(stage, "toxicity", "hate" if category == "benign" else category, f"{toxicity:.2f}")

    def count_own_refusal(self, replies: Sequence[Reply], plan: Plan, seen: Observation) -> None:
        """The model's own refusal, or that of a filter behind it. On route `advise` the policy asked for one."""
        if any(reply.filtered for reply in replies):
            seen.model_refused("upstream_filter")
        elif plan.route != "advise" and any(self._refuses(reply) for reply in replies):
            seen.model_refused("model")

    def _refuses(self, reply: Reply) -> bool:
        said = [one for one in reply.said if not one.tool]
        if any("refusal" in one.name for one in said):
            return True
        return self._refusals.refuses("".join(one.text for one in said if one.name.startswith(_SHOWN)))

    def _rail_verdict(self, stage: Stage, check: Check, plan: Plan, lane: Lane) -> Verdict:
        """Colang flows go by what triage thinks, so its category is theirs; the library's rails know nothing of it."""
        category = plan.category if lane.colang and plan.label != "benign" else "rail"
        words = check.content or self.policy.refusal("rail")
        return Verdict(stage, check.rail, category, f"the rail `{check.rail}` blocked it", words)

    def _failed(self, rail: str, error: str, seen: Observation) -> None:
        """A rail broke: let through where the policy says open, else end the request with an error."""
        mode = "open" if self.shadow else self.policy.fail_mode(rail)
        seen.rail_failed(rail, error, mode)
        if mode == "closed":
            raise RailFailed(rail, error) from None


def _step(direction: Direction, lane: Lane, began: float, outcome: str, rail: str) -> Step:
    taken = round((time.perf_counter() - began) * 1e3, 2)
    return Step(direction, "colang" if lane.colang else "compiled", lane.flows[direction], taken, outcome, rail)


def _name(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


def whole(text: str) -> str:
    """The text with surrogates paired as far as they have a partner; a lone half, which no model reads, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def unescaped(arguments: str) -> str | None:
    """The strings in a tool's arguments as they are meant; None where none of them is written in escapes."""
    if "\\" not in arguments:
        return None
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return whole("\n".join(text for _, text in strings(found))) or None
