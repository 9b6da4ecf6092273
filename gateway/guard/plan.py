"""From judgements to a plan: which texts triage judges, and how their verdicts become one route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from classifiers.labels import label_of
from classifiers.triage import Judgement
from gateway.call import Kind, Segment
from gateway.guard.policy import ROUTES, Policy
from gateway.guard.verdict import Plan


@dataclass(frozen=True, slots=True)
class Unit:
    """A text that triage judges as one."""

    kind: Kind
    text: str


def units(segments: Sequence[Segment]) -> list[Unit]:
    """The new user turns joined, so that a request split over turns is seen whole; each tool result by itself."""
    said = "\n".join(segment.text for segment in segments if segment.kind == "user")
    found = [Unit("user", said)] if said else []
    return found + [Unit("tool", segment.text) for segment in segments if segment.kind == "tool"]


def merge(policy: Policy, found: Sequence[Unit], judged: Sequence[Judgement]) -> Plan:
    """The strictest plan over all texts. A tool result asks for nothing, so only injection counts in it."""
    plan = Plan()
    for unit, judgement in zip(found, judged, strict=True):
        scores = dict(judgement.scores)
        if unit.kind == "tool":
            scores = {"prompt_injection": scores.get("prompt_injection", 0.0)}
        route, label = policy.route(scores)
        if unit.kind == "tool" and route == "allow":
            label = "benign"
        if not judgement.complete and ROUTES.index(route) < ROUTES.index("review"):
            route = "review"
        category = judgement.category if label_of(judgement.category) == label else label
        toxicity = max(plan.toxicity, judgement.toxicity if unit.kind == "user" else 0.0)
        candidate = Plan(route, label, category, scores.get(label, 0.0), scores, toxicity, judgement.tier)
        if plan.tier == "none" or _rank(candidate) > _rank(plan):
            plan = candidate
    return plan


def _rank(plan: Plan) -> tuple[int, float]:
    return ROUTES.index(plan.route), plan.score if plan.label != "benign" else 0.0
