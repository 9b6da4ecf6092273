"""What all endpoints read of a request and say in a reply: its id, its body, the decision's headers."""

from __future__ import annotations

import re
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.call import dump
from gateway.errors import BadRequest, TooLarge
from gateway.record.observation import Observation

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(request: Request) -> str:
    """The client's `x-request-id` where it is harmless, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is known to be over `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"The body is over {limit} bytes.")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"The body is over {limit} bytes.")
        parts.append(part)
    if not size:
        raise BadRequest("The body is empty; a JSON object is expected.", code="invalid_json")
    return b"".join(parts)


def headers(seen: Observation) -> dict[str, str]:
    """What every reply says of itself."""
    # Where the key has limits of its own, those of the gateway's key at the model server are not the client's.
    told = {name: value for name, value in seen.told.items() if not (seen.limits and name.startswith("x-ratelimit-"))}
    found = {
        **told,
        **seen.limits,
        "x-request-id": seen.request_id,
        "x-guardrail-decision": seen.decision,
        "x-guardrail-policy": f"{seen.policy}@{seen.policy_version}",
        "x-guardrail-latency-ms": f"{seen.guard_seconds * 1e3:.2f}",
    }
    if seen.stage:
        found["x-guardrail-stage"] = seen.stage
    if seen.category:
        found["x-guardrail-category"] = seen.category
    if seen.decision == "block":
        found["x-should-retry"] = "false"
    return found


def answered(content: Any, seen: Observation) -> Response:
    """A reply that the gateway makes itself."""
    seen.finish()
    return Response(dump(content), media_type="application/json", headers=headers(seen))
