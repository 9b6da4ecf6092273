"""POST /v1/feedback: somebody says what a decision was worth. POST /v1/probes: run the standing probes now."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from classifiers.labels import CATEGORIES, LABELS
from gateway.errors import AuditFailed, BadRequest, RecordNotFound
from gateway.http.exchange import read_body
from gateway.http.requests import parse_json
from gateway.http.service import Service
from gateway.keys.caller import Caller
from gateway.probes.result import as_json
from gateway.record.audit.recorder import Recorder
from gateway.record.audit.store import Row
from gateway.record.metrics import VERDICTS

MOST_NOTE_CHARACTERS = 2_000


async def feedback(request: Request, service: Service, caller: Caller) -> Any:
    """`{"request_id", "verdict", "note"?, "category"?}`; of several opinions on a request the last one counts.

    A client's key may speak of its own requests, an admin's of all. `decision_id`, of `GET /v1/decisions`, tells apart
    what has one request id.
    """
    body = parse_json(await read_body(request, service.config.limits.body_bytes))
    said = {name: _text(body, name) for name in ("request_id", "decision_id", "verdict", "note", "category")}
    if not said["request_id"]:
        raise BadRequest(
            "Missing required parameter: 'request_id'.", param="request_id", code="missing_required_parameter"
        )
    if said["verdict"] not in VERDICTS:
        raise BadRequest(f"'verdict' must be one of {', '.join(VERDICTS)}", param="verdict", code="invalid_value")
    if len(said["note"]) > MOST_NOTE_CHARACTERS:
        raise BadRequest(f"'note' has over {MOST_NOTE_CHARACTERS} characters", param="note", code="invalid_value")
    if said["category"] not in ("", *LABELS, *CATEGORIES):
        raise BadRequest("'category' is none of triage's labels and categories", param="category", code="invalid_value")
    audit = service.audit
    if audit is None:
        raise RecordNotFound("This gateway keeps no audit records (audit.url is null).", code="audit_off")
    key = "" if caller.role == "admin" else caller.name
    found = await _kept(audit, (said["request_id"], key, said["decision_id"]), service.config.audit.batch_seconds)
    if said["verdict"] == "missed_harm" and found["decision"] == "block":
        raise BadRequest(
            "That request was refused, so no harm was missed.", param="verdict", code="contradicts_decision"
        )
    try:
        await audit.store.add_feedback(found["id"], said["verdict"], said["category"], said["note"])
    except Exception:  # noqa: BLE001  the seam of the database
        raise AuditFailed from None
    service.metrics.count("feedback_total", verdict=said["verdict"])
    return {
        "object": "feedback",
        "request_id": said["request_id"],
        "verdict": said["verdict"],
        "decision": found["decision"],
        "category": said["category"] or found["category"],
    }


async def probes(request: Request, service: Service, caller: Caller) -> Any:
    """All probes through the policy in force, now; a second or two of one core."""
    service.pipeline()
    assert service.prober is not None
    return as_json(await service.prober.run())


async def _kept(audit: Recorder, wanted: tuple[str, str, str], batch_seconds: float) -> Row:
    """The record, written first if it still waits here, and waited for if it does in another worker."""
    try:
        await audit.flush()
        found = await audit.store.find(*wanted)
        if found is None:
            await asyncio.sleep(batch_seconds * 1.5)
            found = await audit.store.find(*wanted)
    except Exception:  # noqa: BLE001  the seam of the database
        raise AuditFailed from None
    if found is None:
        raise RecordNotFound("No decision with that request id is on record.", param="request_id")
    return found


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"'{name}' must be a string", param=name, code="invalid_type")
    return (value or "").strip()
