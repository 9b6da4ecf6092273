"""What an operator reads, with an admin's key: decisions, what was said of them, probes, and the policies in force."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar, get_args

from starlette.requests import Request

from gateway import __version__
from gateway.errors import AuditFailed, BadRequest, RecordNotFound
from gateway.guard.policy import Policy
from gateway.guard.verdict import Decision
from gateway.http.service import Service
from gateway.keys.caller import Caller
from gateway.probes.result import Result, as_json
from gateway.record.audit import views
from gateway.record.audit.recorder import Recorder
from gateway.record.audit.store import Row

T = TypeVar("T")

KINDS = get_args(Decision)
REFUSED = ("block", "would_block")
MOST_ROWS = 100
_DAYS = 30.0
_MOST_DAYS = 366.0
_ID_CHARACTERS = 128


async def decisions(request: Request, service: Service, caller: Caller) -> Any:
    """`?decision=block,would_block&limit=50&before=ID`, the newest first; or `?request_id=`, whatever it was."""
    limit = int(_number(request, "limit", 50, MOST_ROWS))
    wanted = _text(request, "request_id")
    kinds = [kind for kind in request.query_params.get("decision", "").split(",") if kind] or list(REFUSED)
    for kind in kinds:
        if kind not in KINDS:
            message = f"'decision' must be of {', '.join(KINDS)}, with commas between"
            raise BadRequest(message, param="decision", code="invalid_value")
    audit = _audit(service)
    if wanted:
        found, more = await _read(audit, service, views.decisions_of(audit.store, wanted, limit)), False
    else:
        before = _text(request, "before")
        found = await _read(
            audit, service, views.decisions(audit.store, tuple(dict.fromkeys(kinds)), limit + 1, before)
        )
        more = len(found) > limit
    return {"object": "list", "data": [_decision(row) for row in found[:limit]], "has_more": more}


async def opinions(request: Request, service: Service, caller: Caller) -> Any:
    """`?days=30`: the confusion matrix of what people said: what the message was, and how it was treated."""
    days = _number(request, "days", _DAYS, _MOST_DAYS)
    audit = _audit(service)
    rows = await _read(audit, service, views.opinions(audit.store, days))
    treatments = ("answered", "refused_by_model", "refused")
    matrix = {truth: dict.fromkeys(treatments, 0) for truth in ("harmless", "harmful")}
    verdicts, wrong = Counter[str](), Counter[str]()
    for row in rows:
        treated = "refused" if row["decision"] in REFUSED else "refused_by_model" if row["by_model"] else "answered"
        right = "harmful" if treated == "refused" else "harmless"
        truth = {"wrong_refusal": "harmless", "missed_harm": "harmful"}.get(row["verdict"], right)
        matrix[truth][treated] += row["count"]
        verdicts[row["verdict"]] += row["count"]
        if truth == "harmless" and treated == "refused":
            wrong[row["category"]] += row["count"]
    said = {"verdicts": dict(verdicts), "matrix": matrix, "wrong_by_category": dict(wrong.most_common(10))}
    return {"object": "feedback_matrix", "days": days, **said}


async def probe_runs(request: Request, service: Service, caller: Caller) -> Any:
    """The last run of the probes, as `POST /v1/probes` answers it; an empty list where there was none."""
    audit = _audit(service)
    rows = await _read(audit, service, views.last_probes(audit.store))
    results = [Result(**{name: row[name] for name in Result.__dataclass_fields__}) for row in rows]
    return {"object": "list", "data": [as_json(results)] if results else []}


async def policies(request: Request, service: Service, caller: Caller) -> Any:
    """The policies in force, the last attempt to load each anew, the candidate if there is one, and what is kept."""
    service.pipeline()
    assert service.policies is not None
    states = service.reloader.states() if service.reloader is not None else {}
    listed = []
    for name in service.policies.names:
        guard = service.policies.get(name)
        last = states.get(name, {}).get("last_reload")
        listed.append({**_policy(guard.policy), "loaded_at": round(guard.made, 3), "last_reload": last})
    audit = service.audit
    return {
        "object": "list",
        "data": listed,
        "default": service.policies.default,
        "candidate": await _candidate(service, states),
        "triage": {"weights": service.weights},
        "keys": service.ring.state,
        "audit": {"text": service.config.audit.text, "up": audit.up} if audit is not None else None,
        "version": __version__,
    }


def _policy(policy: Policy) -> dict[str, Any]:
    rules = policy.rules
    return {
        "name": policy.name,
        "version": policy.version,
        "mode": rules.mode,
        "operating_point": rules.operating_point,
        "thresholds": {label: dict(routes) for label, routes in policy.routes.items()},
        "examples": len(rules.expect),
    }


async def _candidate(service: Service, states: dict[str, Any]) -> Any:
    trial = service.trial
    if trial is None:
        return None
    policy, settings = trial.guard.policy, service.config.shadow
    found = {
        **_policy(policy),
        "weights": trial.weights,
        "beside": trial.beside,
        "runs": settings.mode,
        "share": settings.share,
        "loaded_at": round(trial.guard.made, 3),
        "last_reload": states.get(policy.name, {}).get("last_reload"),
        "compared": None,
    }
    if service.audit is not None and settings.mode == "observe":
        query = views.comparisons(service.audit.store, policy.name, policy.version, trial.weights, _DAYS)
        with suppress(AuditFailed):  # what is in force can be told without it
            rows = await _read(service.audit, service, query)
            disagreed = [row for row in rows if row["live"] != row["candidate"]]
            found["compared"] = sum(row["count"] for row in rows)
            found["disagreed"] = sum(row["count"] for row in disagreed)
            found["disagreements"] = [dict(row) for row in sorted(disagreed, key=lambda row: -row["count"])]
    return found


def _decision(row: Row) -> dict[str, Any]:
    """A record as the API shows it."""
    same = ("id", "at", "request_id", "key", "endpoint", "decision", "label", "category", "score", "scores", "route")
    more = ("tier", "stage", "rail", "source", "error", "stream", "weights", "sha256", "text")
    said = row["feedback"]
    return {
        **{name: row[name] for name in (*same, *more)},
        "reason": _reason(row),
        "policy": {"name": row["policy"], "version": row["policy_version"]},
        "latency_ms": {"total": row["total_ms"], "guard": row["guard_ms"], "upstream": row["upstream_ms"]},
        "feedback": said and {name: said[name] for name in ("verdict", "category", "note", "at")},
    }


def _reason(row: Row) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    if row["decision"] not in REFUSED:
        return "the model itself refused" if row["source"] == "model" else ""
    if row["stage"] == "triage":
        return f"triage: {row['label']} {row['score']:.2f}"
    return f"the rail `{row['rail']}` blocked it"


def _audit(service: Service) -> Recorder:
    if service.audit is None:
        raise RecordNotFound("This gateway keeps no audit records (audit.url is null).", code="audit_off")
    return service.audit


async def _read(audit: Recorder, service: Service, query: Awaitable[T]) -> T:
    """Raises `AuditFailed` where the database fails, or does not answer in time."""
    try:
        async with asyncio.timeout(service.config.audit.timeout_seconds):
            return await query
    except Exception:  # noqa: BLE001  the seam of the database
        raise AuditFailed("The audit store does not answer.") from None


def _number(request: Request, name: str, default: float, most: float) -> float:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= most or len(given) > 9:
        raise BadRequest(f"'{name}' must be a whole number from 1 to {most:.0f}", param=name, code="invalid_value")
    return int(given)


def _text(request: Request, name: str) -> str:
    given = request.query_params.get(name, "")
    if len(given) > _ID_CHARACTERS or not given.isprintable():
        raise BadRequest(f"'{name}' is no id", param=name, code="invalid_value")
    return given
