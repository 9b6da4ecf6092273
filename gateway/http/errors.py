"""One table from our errors to HTTP, and the one builder of OpenAI's error shape. All four keys, always."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gateway import errors

# error: status, OpenAI's `type`, `code` where the error brings none
TABLE: Mapping[type[errors.GatewayError], tuple[int, str, str | None]] = {
    errors.BadRequest: (400, "invalid_request_error", None),
    errors.TooLarge: (413, "invalid_request_error", "request_too_large"),
    errors.Unauthorized: (401, "invalid_request_error", "invalid_api_key"),
    errors.Forbidden: (403, "invalid_request_error", "insufficient_permissions"),
    errors.RateLimited: (429, "requests", "rate_limit_exceeded"),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.NotServed: (404, "invalid_request_error", "endpoint_not_served"),
    errors.RecordNotFound: (404, "invalid_request_error", "request_not_found"),
    errors.AuditFailed: (503, "server_error", "audit_failed"),
    errors.LimitsFailed: (503, "server_error", "limits_failed"),
    errors.RailFailed: (503, "server_error", "guardrail_failed"),
    errors.Draining: (503, "server_error", "not_ready"),
    errors.UpstreamUnavailable: (502, "upstream_error", "upstream_unavailable"),
    errors.UpstreamTimeout: (504, "upstream_error", "upstream_timeout"),
    errors.UpstreamBroken: (502, "upstream_error", "upstream_broken"),
    errors.UpstreamRejected: (502, "upstream_error", "upstream_rejected"),
}


def body(message: str, kind: str, *, param: Any = None, code: Any = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


INTERNAL = body("The gateway failed. The request id names the record of it.", "server_error", code="internal_error")


def reply(error: errors.GatewayError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error."""
    if isinstance(error, errors.UpstreamRejected):
        return _rejected(error)
    status, kind, code = TABLE[type(error)]
    headers = {}
    if isinstance(error, errors.RateLimited):
        kind = error.limit
        headers = _wait(error.wait_seconds)
    if isinstance(error, errors.RailFailed):
        headers["x-should-retry"] = "false"
    if isinstance(error, errors.UpstreamUnavailable) and error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return status, body(error.message, kind, param=error.param, code=error.code or code), headers


def _wait(seconds: float | None) -> dict[str, str]:
    """When to come again: to the second for all, to the millisecond for OpenAI's own clients."""
    if seconds is None:
        return {"x-should-retry": "false"}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def _rejected(error: errors.UpstreamRejected) -> tuple[int, dict[str, Any], dict[str, str]]:
    status, kind, code = TABLE[errors.UpstreamRejected]
    headers = dict(error.headers)
    if not error.passed_on:
        return status, body(error.message, kind, code=code), headers
    said = dict(error.error or {})
    message = said.pop("message", None)
    given, param = said.pop("type", None), said.pop("param", None)
    found = body(
        message if isinstance(message, str) and message else error.message,
        given if isinstance(given, str) else kind if error.status == 200 else "invalid_request_error",
        param=param if isinstance(param, str) else None,
        code=said.pop("code", code),
    )
    found["error"].update(said)
    return status if error.status == 200 else error.status, found, headers


def content_filter(guardrails: Mapping[str, Any], message: str) -> dict[str, Any]:
    """A block in Azure's shape, for `on_block: error`."""
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {str(guardrails["category"]): {"filtered": True}},
            },
        },
        "guardrails": dict(guardrails),
    }
