"""From judgements to a plan: which texts triage judges, and how their verdicts become one route."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from classifiers.labels import label_of
from classifiers.language import ENGLISH
from classifiers.message import Judgement, Message
from gateway.call import Call, Segment
from gateway.guard.policy import ROUTES, Policy
from gateway.guard.verdict import Plan


def units(segments: Sequence[Segment], before: str = "") -> list[Message]:
    """What triage judges as one: the new user turns joined, so that a request split over turns is seen whole, with the
    earlier ones beside it; each tool result by itself."""
    said = "\n".join(segment.text for segment in segments if segment.kind == "user")
    found = [Message(said, before)] if said else []
    return found + [Message(segment.text, kind="tool") for segment in segments if segment.kind == "tool"]


def asked(call: Call) -> list[Message]:
    """Everything new in a request that triage judges."""
    earlier = call.form.earlier(call.body)
    return [unit for group in groups(call.form.segments(call.body)) for unit in units(group, earlier)]


def groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The segments of each group: what is one thing said in pieces."""
    for _, group in groupby(segments, key=lambda segment: segment.group):
        yield list(group)


def merge(policy: Policy, found: Sequence[Message], judged: Sequence[Judgement]) -> Plan:
    """The strictest plan over all texts. A tool result asks for nothing, so only injection counts in it."""
    plan = Plan()
    for unit, judgement in zip(found, judged, strict=True):
        scores = dict(judgement.scores)
        if unit.kind == "tool":
            scores = {"prompt_injection": scores.get("prompt_injection", 0.0)}
        route, label = policy.route(scores)
        if unit.kind == "tool" and route == "allow":
            label = "benign"
        doubted = policy.rules.other_languages if judgement.language != ENGLISH and unit.kind == "user" else "allow"
        if not judgement.complete:
            doubted = max(doubted, "review", key=ROUTES.index)
        route = max(route, doubted, key=ROUTES.index)
        category = judgement.category if label_of(judgement.category) == label else label
        toxicity = max(plan.toxicity, judgement.toxicity if unit.kind == "user" else 0.0)
        candidate = Plan(
            route, label, category, scores.get(label, 0.0), scores, toxicity, judgement.tier, judgement.language
        )
        if plan.tier == "none" or _rank(candidate) > _rank(plan):
            plan = candidate
    return plan


def _rank(plan: Plan) -> tuple[int, float]:
    return ROUTES.index(plan.route), plan.score if plan.label != "benign" else 0.0
