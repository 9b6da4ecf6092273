"""The OpenAPI document, by hand: the API is OpenAI's, whose members we pass on without knowing them all."""

from __future__ import annotations

from typing import Any

from gateway import __version__

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {},
                "code": {},
            },
        }
    },
}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {"type": "string"},
        },
    },
}
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
_MODEL = {"type": "string", "minLength": 1}
_STREAM = {"type": "boolean", "description": "The reply as server-sent events."}
_BLOCK = {
    "name": "x-guardrail-on-block",
    "in": "header",
    "schema": {"enum": ["completion", "error"]},
    "description": "A block's shape: a normal reply that refuses, or Azure's error 400.",
}


def openapi() -> dict[str, Any]:
    """What `/openapi.json` says."""
    n = {"type": "integer", "minimum": 1, "maximum": 128}
    return {
        "openapi": "3.1.0",
        "info": {"title": "hhh-gateway", "version": __version__},
        "security": [{}, {"bearer": []}],
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
        "paths": {
            "/v1/chat/completions": _model(
                "Chat completions", {"model": _MODEL, "messages": _MESSAGES, "stream": _STREAM, "n": n}, "messages"
            ),
            "/v1/responses": _model(
                "Responses", {"model": _MODEL, "input": {"type": "string"}, "stream": _STREAM}, "input"
            ),
            "/v1/completions": _model(
                "Completions", {"model": _MODEL, "prompt": _TEXTS, "stream": _STREAM, "n": n}, "prompt"
            ),
            "/v1/embeddings": _model("Embeddings", {"model": _MODEL, "input": _TEXTS}, "input"),
            "/v1/moderations": _post(
                "Moderations", {"model": {"type": "string"}, "input": _TEXTS}, ["input"], _limited()
            ),
            "/v1/guardrails/check": _post(
                "The verdict on messages",
                {"messages": _MESSAGES, "detail": {"type": "boolean"}, "policy": {"type": "string"}},
                ["messages"],
                {**_limited(), "403": _error("Details, and a policy of one's choice, need an admin's key.")},
            ),
            "/beta/litellm_basic_guardrail_api": _post(
                "LiteLLM's generic guardrail API",
                {
                    "texts": {"type": "array", "items": {"type": "string"}},
                    "input_type": {"enum": ["request", "response"]},
                },
                ["texts", "input_type"],
                _limited(),
            ),
            "/v1/decisions": _listed(
                "The newest decisions",
                {
                    "decision": {"type": "string", "description": "Of which kinds, with commas between."},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                    "before": {"type": "string", "description": "The id of the last one of the page before."},
                    "request_id": {"type": "string"},
                },
            ),
            "/v1/policies": _listed("The policies in force, and what came of their last reload", {}),
            "/v1/feedback": _post(
                "What a decision was worth",
                {
                    "request_id": {"type": "string"},
                    "decision_id": {"type": "string"},
                    "verdict": {"enum": ["wrong_refusal", "missed_harm", "correct"]},
                    "note": {"type": "string"},
                },
                ["request_id", "verdict"],
                {"404": _error("No decision with that request id is on record.")},
            )
            | _listed("What was said of decisions: the confusion matrix", {"days": {"type": "integer", "minimum": 1}}),
            "/v1/probes": {
                "post": _get("The standing probes, run now: the confusion matrix", {"403": _admin()})["get"],
                **_listed("The last run of the probes", {}),
            },
            "/v1/models": _get("Models", {}),
            "/v1/models/{model}": _get("One model", {"404": _error("No such model.")}, "model"),
            "/livez": _get("Whether the process lives", {}, kind="text/plain"),
            "/readyz": _get("Whether requests can be served", {"503": {"description": "Not now."}}, kind="text/plain"),
            "/metrics": _get("Metrics for Prometheus", {}, kind="text/plain"),
        },
    }


def _model(summary: str, properties: dict[str, Any], text: str) -> dict[str, Any]:
    """An endpoint of the model's, through the guard."""
    found = {
        "404": _error("The model, or the endpoint, does not exist."),
        "409": _error("The model server said so."),
        "415": _error("The model server said so."),
        "422": _error("The model server said so."),
        "429": _error("The key is over a limit, or the model server has too much to do; with `retry-after`."),
        "502": _error("The model server is down, broke off, or refused the gateway."),
        "504": _error("The model server did not answer in time."),
    }
    return _post(summary, properties, ["model", text], found, [_BLOCK])


def _limited() -> dict[str, Any]:
    return {"429": _error("The key is over a limit; with `retry-after`.")}


def _post(
    summary: str,
    properties: dict[str, Any],
    required: list[str],
    errors: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    kinds = ("application/json", "text/event-stream") if "stream" in properties else ("application/json",)
    return {
        "post": {
            "summary": summary,
            "parameters": parameters or [],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "200": {"description": "The reply, or a refusal.", "content": {kind: {"schema": {}} for kind in kinds}},
                "400": _error("The request is at fault, or was blocked and the client asked for an error."),
                "401": _error("No accepted key."),
                "413": _error("Over a budget."),
                "503": _error("A check failed closed, or the gateway is loading."),
                **errors,
            },
        }
    }


def _get(
    summary: str, errors: dict[str, Any], parameter: str | None = None, kind: str = "application/json"
) -> dict[str, Any]:
    named = {"name": parameter, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    found: dict[str, Any] = {"200": {"description": summary, "content": {kind: {"schema": {}}}}, **errors}
    if kind == "application/json":
        found |= {"401": _error("No accepted key."), "502": _error("The model server is at fault.")}
        found |= {"503": _error("The gateway is loading."), "504": _error("The model server did not answer in time.")}
    return {"get": {"summary": summary, "parameters": [named] if parameter else [], "responses": found}}


def _listed(summary: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """What an admin's key may read of the records."""
    found = _get(summary, {"403": _admin(), "404": _error("This gateway keeps no records.")})
    found["get"]["parameters"] = [{"name": name, "in": "query", "schema": one} for name, one in parameters.items()]
    found["get"]["responses"]["400"] = _error("A parameter is at fault.")
    return found


def _admin() -> dict[str, Any]:
    return _error("This needs a key with the role `admin`.")


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
