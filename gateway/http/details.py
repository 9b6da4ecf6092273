"""The details of a check, for an admin: scores, thresholds, the words that moved them, and the rails that ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request

from gateway.call import Call, Route
from gateway.errors import BadRequest
from gateway.guard.policy import Policy
from gateway.guard.verdict import Plan, Verdict
from gateway.http.auth import require
from gateway.http.service import Service, Visit
from gateway.pipeline import Pipeline
from gateway.record.observation import Step


def wanted(body: Mapping[str, Any], visit: Visit) -> bool:
    """Whether the body asks for details, or for a policy of its choice. Raises `BadRequest`, `Forbidden`."""
    detail = body.get("detail")
    if detail is not None and not isinstance(detail, bool):
        raise BadRequest("'detail' must be true or false", param="detail", code="invalid_type")
    if detail or body.get("policy") is not None:
        require(visit.caller, "admin")
    return bool(detail)


def way(request: Request, body: Mapping[str, Any], visit: Visit, call: Call, detailed: bool) -> Pipeline:
    """Through the policy that the body names; the key's else. With details it is never the candidate's."""
    name = body.get("policy")
    if name is None:
        return visit.pipeline if detailed else visit.way(call)
    service: Service = request.app.state.service
    if not isinstance(name, str):
        raise BadRequest("'policy' must be a string", param="policy", code="invalid_type")
    if service.policies is None or name not in service.policies.names:
        raise BadRequest("No policy of that name is in force.", param="policy", code="policy_not_found")
    return service.under(name, visit.seen)


async def details(pipeline: Pipeline, call: Call, visit: Visit, found: object) -> dict[str, Any]:
    """Of a check that has ended."""
    policy, seen = pipeline.guard.policy, visit.seen
    why = await pipeline.guard.explain(call, seen)
    plan, limits = why.plan, policy.rules.toxicity
    passed = not isinstance(found, Verdict)
    return {
        "scores": {label: round(score, 5) for label, score in plan.scores.items()},
        "thresholds": {label: dict(routes) for label, routes in policy.routes.items()},
        "category": plan.category,
        "tier": plan.tier,
        "language": plan.language,
        "complete": why.complete,
        "toxicity": {"score": round(plan.toxicity, 5), "limit": limits.input},
        "words": {
            "label": why.label,
            "text": why.text,
            "found": [asdict(one) for one in why.words],
            "none": why.silent,
        },
        "steps": [_step(step, plan) for step in seen.steps or ()],
        "guidance": _guidance(policy, plan.route, plan.category) if passed else None,
        "mode": policy.rules.mode,
    }


def _step(step: Step, plan: Plan) -> dict[str, Any]:
    """Of triage it is the tier that ran, and the route that came of it."""
    told = {**asdict(step), "rails": list(step.rails)}
    return {**told, "lane": plan.tier, "outcome": plan.route} if step.stage == "triage" else told


def _guidance(policy: Policy, route: Route, category: str) -> str | None:
    """What the model would be told; in shadow mode nothing."""
    return policy.guidance(route, category) if policy.rules.mode == "enforce" else None
