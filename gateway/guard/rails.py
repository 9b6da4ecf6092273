"""The guard: a policy in force. It plans a route, checks what goes in, and checks what comes out before release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from classifiers.refusal import RefusalDetector

from gateway.chat import Chat, Chunk, Completion
from gateway.errors import RailFailed
from gateway.guard.judge import Judge
from gateway.guard.nemo import Check, Direction, Lane, RailError
from gateway.guard.plan import merge, units
from gateway.guard.policy import Policy
from gateway.guard.refusal import NO_USAGE, Frames, guardrails, refuse_choice
from gateway.guard.segments import new_segments, reply_texts, rewritten, tool_arguments
from gateway.guard.verdict import SOURCES, Blocked, Plan, Stage, Verdict
from gateway.guard.window import Window
from gateway.record.observation import Observation

# How long a blocked stream is still read for the usage that its client asked for.
_USAGE_SECONDS = 2.0


class Guard:
    """One policy with its lanes and classifiers. Stateless between requests but for the judge's memory."""

    def __init__(
        self,
        policy: Policy,
        lanes: tuple[Lane, Lane],
        judge: Judge,
        refusals: RefusalDetector,
        triage_timeout_seconds: float,
    ) -> None:
        self.policy = policy
        self._fast, self._colang = lanes
        self._judge = judge
        self._refusals = refusals
        self._triage_timeout_seconds = triage_timeout_seconds

    async def warm(self) -> None:
        """Make the first request as fast as the next: run every lane and the classifier once."""
        await asyncio.gather(self._fast.warm(), self._colang.warm(), self._judge.score("Hello"))

    async def plan(self, chat: Chat, seen: Observation) -> Plan:
        """Triage the new turns. Raises `Blocked` on route `refuse`, `RailFailed` when triage fails closed."""
        with seen.time("triage"):
            found = units(new_segments(chat.messages))
            try:
                async with asyncio.timeout(self._triage_timeout_seconds):
                    judged = await asyncio.gather(*(self._judge.score(unit.text) for unit in found))
                plan = merge(self.policy, found, judged)
            except Exception as error:  # noqa: BLE001  the seam of a rail
                self._failed("triage", _name(error), seen)
                plan = Plan(route="review", tier="failed")
        seen.triaged(plan.label, plan.route, plan.score, plan.tier)
        if plan.route == "refuse":
            self._block(self._verdict("triage", "triage", plan.category, f"{plan.label} {plan.score:.2f}"), seen)
        limit = self.policy.rules.toxicity.input
        if limit is not None and plan.toxicity >= limit:
            self._block(self._toxic("input", plan.toxicity, plan.category), seen)
        return plan

    async def check_input(self, chat: Chat, plan: Plan, seen: Observation) -> Chat:
        """Input rails on each new text, rewrites put back in place, and guidance on route `advise`."""
        messages = chat.messages
        with seen.time("input_rails"):
            for segment in new_segments(messages):
                text = segment.text
                for lane in self._lanes(plan):
                    check = await self._run(lane, "input", text, None, plan, seen)
                    if check.decision == "block":
                        self._block(self._rail_verdict("input", check, plan), seen)
                    elif check.decision == "modify" and not self._shadow:
                        text = check.content or ""
                        seen.modified("input", check.rail or lane.flows["input"][0])
                if text != segment.text:
                    messages = rewritten(messages, segment, text)
                    chat = chat.with_messages(messages)
        guidance = None if self._shadow else self.policy.guidance(plan.route, plan.category)
        if guidance is not None:
            chat = chat.with_guidance(guidance)
        return chat.with_route("allow" if plan.route == "refuse" else plan.route)

    async def check_output(self, chat: Chat, completion: Completion, plan: Plan, seen: Observation) -> Completion:
        """Output rails on every choice; one that is blocked is replaced, the others stay as they came."""
        body = completion.body
        usage = body.get("usage")
        seen.tokens(usage)
        self._count_own_refusal(body.get("choices") or [], plan, seen)
        choices: list[Any] = []
        verdicts: list[Verdict] = []
        with seen.time("output_rails"):
            for choice in body.get("choices") or []:
                checked = await self._check_choice(chat, choice, plan, seen)
                if isinstance(checked, Verdict):
                    verdicts.append(checked)
                    checked = refuse_choice(choice, checked, self.policy)
                choices.append(checked)
        if verdicts:
            why = guardrails(verdicts[0], self.policy, seen)
            return Completion({**body, "choices": choices, "usage": usage or dict(NO_USAGE), "guardrails": why})
        if choices != list(body.get("choices") or []):
            return Completion({**body, "choices": choices})
        return completion

    async def _check_choice(
        self, chat: Chat, choice: dict[str, Any], plan: Plan, seen: Observation
    ) -> dict[str, Any] | Verdict:
        message = choice.get("message") or {}
        for name, text in reply_texts(message):
            checked = await self.check_text(chat, text, plan, seen, "output")
            if isinstance(checked, Verdict):
                return checked
            if checked != text:
                message = {**message, name: checked}
                choice = {**choice, "message": message}
        for arguments in tool_arguments(message):
            checked = await self.check_text(chat, arguments, plan, seen, "tool")
            if isinstance(checked, Verdict):
                return checked
        return choice

    async def check_text(self, chat: Chat, text: str, plan: Plan, seen: Observation, stage: Stage) -> str | Verdict:
        """One text of the reply: the text, perhaps rewritten, or why it must not go out."""
        if not text:
            return text
        user = "\n\n".join(segment.text for segment in new_segments(chat.messages)) or " "
        for lane in self._lanes(plan):
            check = await self._run(lane, "output", user, text, plan, seen)
            if check.decision == "block":
                verdict = self._rail_verdict(stage, check, plan)
                if self._refused(verdict, seen):
                    return verdict
            elif check.decision == "modify" and not self._shadow:
                text = check.content or ""
                seen.modified(stage, check.rail or lane.flows["output"][0])
        limit = self.policy.rules.toxicity.output
        if limit is not None:
            try:
                async with asyncio.timeout(self.policy.rules.rail_timeout_seconds):
                    judgement = await self._judge.score(text)
            except Exception as error:  # noqa: BLE001  the seam of a rail
                self._failed("toxicity", _name(error), seen)
                return text
            if judgement.toxicity >= limit:
                verdict = self._toxic(stage, judgement.toxicity, judgement.category)
                if self._refused(verdict, seen):
                    return verdict
        return text

    async def check_stream(
        self, chat: Chat, chunks: AsyncIterator[Chunk], plan: Plan, seen: Observation
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks, each released only when what it says has been checked; on a block, the refusal's chunks."""
        window = Window(self.policy.rules.streaming)
        said: dict[int, dict[str, Any]] = {}
        frames: Frames | None = None
        began = seen.started
        ended = False
        while not ended:
            with seen.time("upstream"):
                chunk = await anext(chunks, None)
            if chunk is None:
                window.end()
                ended = True
            else:
                frames = frames or Frames(chat, chunk.body)
                _remember(said, chunk)
                seen.tokens(chunk.body.get("usage"))
                window.push(chunk)
            for channel in window.due():
                with seen.time("output_rails"):
                    stage: Stage = "tool" if channel.tool else "output"
                    checked = await self.check_text(chat, channel.tail, plan, seen, stage)
                if checked != channel.tail:
                    if not isinstance(checked, Verdict):  # a stream's text cannot be rewritten once part of it is out
                        checked = self._verdict(stage, "rewrite", "rail", "a rail rewrote streamed text")
                        self._refused(checked, seen)
                    for frame in self._end_blocked(chat, window, frames or Frames(chat), checked, seen):
                        yield frame
                    if chat.wants_usage:
                        usage = await _usage(chunks)
                        seen.tokens(usage)
                        yield (frames or Frames(chat)).usage(usage or NO_USAGE)
                    return
                window.clear(channel)
            for released, held_seconds in window.release():
                seen.metrics.observe("stream_holdback_seconds", held_seconds)
                if began and window.spoken:
                    seen.metrics.observe("time_to_first_token_seconds", time.perf_counter() - began)
                    began = 0.0
                yield released
        self._count_own_refusal(list(said.values()), plan, seen)

    def _end_blocked(
        self, chat: Chat, window: Window, frames: Frames, verdict: Verdict, seen: Observation
    ) -> list[Chunk]:
        ending: list[Chunk] = []
        for index in sorted((set(range(chat.choices)) | window.roles) - window.finished):
            if index not in window.roles:
                ending.append(frames.delta(index, {"role": "assistant", "content": ""}))
            elif index in window.spoken and self.policy.rules.refusal_style != "refusal":
                ending.append(frames.delta(index, {"content": "\n\n"}))
            ending.append(frames.refusal(index, verdict, self.policy))
            ending.append(frames.end(index, verdict, self.policy, seen))
        return ending

    @property
    def _shadow(self) -> bool:
        return self.policy.rules.mode == "shadow"

    def _lanes(self, plan: Plan) -> tuple[Lane, ...]:
        return (self._fast, self._colang) if plan.route in self.policy.rules.colang_routes else (self._fast,)

    async def _run(
        self, lane: Lane, direction: Direction, user: str, reply: str | None, plan: Plan, seen: Observation
    ) -> Check:
        try:
            return await lane.check(direction, user, reply, plan.context(), self.policy.rules.rail_timeout_seconds)
        except RailError as error:
            self._failed(error.rail, error.error, seen)
            return Check("pass")

    def _failed(self, rail: str, error: str, seen: Observation) -> None:
        """A rail broke: let through where the policy says open, else end the request with an error."""
        mode = "open" if self._shadow else self.policy.fail_mode(rail)
        seen.rail_failed(rail, error, mode)
        if mode == "closed":
            raise RailFailed(rail, error) from None

    def _verdict(self, stage: Stage, rail: str, category: str, reason: str) -> Verdict:
        return Verdict(stage, rail, category, f"{rail}: {reason}", self.policy.refusal(category))

    def _toxic(self, stage: Stage, toxicity: float, category: str) -> Verdict:
        return self._verdict(stage, "toxicity", "hate" if category == "benign" else category, f"{toxicity:.2f}")

    def _rail_verdict(self, stage: Stage, check: Check, plan: Plan) -> Verdict:
        category = plan.category if plan.label != "benign" else "rail"
        return Verdict(
            stage,
            check.rail,
            category,
            f"the rail `{check.rail}` blocked it",
            check.content or self.policy.refusal("rail"),
        )

    def _refused(self, verdict: Verdict, seen: Observation) -> bool:
        """Count a refusal; whether it is carried out (not in shadow mode)."""
        source = SOURCES[verdict.stage]
        seen.refused(verdict.stage, verdict.rail, verdict.category, source, shadow=self._shadow)
        return not self._shadow

    def _block(self, verdict: Verdict, seen: Observation) -> None:
        if self._refused(verdict, seen):
            raise Blocked(verdict)

    def _count_own_refusal(self, choices: list[dict[str, Any]], plan: Plan, seen: Observation) -> None:
        """The model's own refusal, or that of a filter behind it. On route `advise` the policy asked for one."""
        if any(choice.get("finish_reason") == "content_filter" for choice in choices):
            seen.model_refused("upstream_filter")
        elif plan.route != "advise":
            messages = [choice.get("message") or {} for choice in choices]
            if any(
                message.get("refusal") or self._refusals.refuses(str(message.get("content") or ""))
                for message in messages
            ):
                seen.model_refused("model")


def _name(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


def _remember(said: dict[int, dict[str, Any]], chunk: Chunk) -> None:
    """The beginning of each choice, for the refusal detector."""
    for choice in chunk.body.get("choices") or []:
        entry = said.setdefault(choice.get("index", 0), {"message": {"content": "", "refusal": None}})
        delta = choice.get("delta") or {}
        if isinstance(delta.get("content"), str) and len(entry["message"]["content"]) < 600:
            entry["message"]["content"] += delta["content"]
        entry["message"]["refusal"] = entry["message"]["refusal"] or delta.get("refusal")
        entry["finish_reason"] = choice.get("finish_reason") or entry.get("finish_reason")


async def _usage(chunks: AsyncIterator[Chunk]) -> dict[str, Any] | None:
    """Read on for the usage chunk, for a moment."""
    try:
        async with asyncio.timeout(_USAGE_SECONDS):
            async for chunk in chunks:
                if chunk.body.get("usage"):
                    return dict(chunk.body["usage"])
    except Exception:  # noqa: BLE001  the reply is over; its usage is then unknown
        return None
    return None
