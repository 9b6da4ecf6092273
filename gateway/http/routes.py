"""The table of routes, and the small endpoints: models, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.call import dump
from gateway.errors import GatewayError, ModelNotFound
from gateway.forms.chat import CHAT
from gateway.forms.completions import COMPLETIONS
from gateway.forms.embeddings import EMBEDDINGS
from gateway.forms.responses import RESPONSES
from gateway.http import errors
from gateway.http.admin import decisions, opinions, policies, probe_runs
from gateway.http.auth import require
from gateway.http.console import CONSOLE
from gateway.http.exchange import request_id
from gateway.http.feedback import feedback, probes
from gateway.http.guarded import guarded, observed
from gateway.http.moderations import moderations
from gateway.http.openapi import openapi
from gateway.http.service import Service
from gateway.http.verdicts import check, litellm
from gateway.keys.caller import Caller, Role


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dump(value), status, media_type="application/json", headers=headers)


def _with_key(
    endpoint: Callable[[Request, Service, Caller], Awaitable[Any]], role: Role = "client"
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that asks for a key of that role, and whose errors have OpenAI's shape."""

    async def handle(request: Request) -> Response:
        service: Service = request.app.state.service
        headers = {"x-request-id": request_id(request)}
        try:
            caller = service.caller(request.headers)
            require(caller, role)
            return _json(await endpoint(request, service, caller), headers=headers)
        except GatewayError as error:
            status, content, extra = errors.reply(error)
            return _json(content, status, {**headers, **extra})
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the client sees no trace of it
            structlog.get_logger().error("request failed", request_id=headers["x-request-id"], exc_info=error)
            return _json(errors.INTERNAL, 500, headers)

    return handle


@_with_key
async def models(request: Request, service: Service, caller: Caller) -> Any:
    listed = {"object": "list", **await service.pipeline().upstream.models()}
    if caller.models is not None:
        listed["data"] = [one for one in _named(listed.get("data")) if caller.may_use(str(one.get("id")))]
    return listed


@_with_key
async def model(request: Request, service: Service, caller: Caller) -> Any:
    wanted = request.path_params["model"]
    for found in _named((await service.pipeline().upstream.models()).get("data")):
        if found.get("id") == wanted and caller.may_use(wanted):
            return found
    raise ModelNotFound(wanted)


def _named(listed: Any) -> list[dict[str, Any]]:
    """The models of a list, whatever the model server says."""
    return [found for found in listed if isinstance(found, dict)] if isinstance(listed, list) else []


async def livez(request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def readyz(request: Request) -> Response:
    """200 when requests can be served; 503 while loading, draining, or without the upstream."""
    service: Service = request.app.state.service
    try:
        async with asyncio.timeout(2):
            state = await service.state()
    except TimeoutError:
        state = "upstream not ready"
    ready = state == "ready"
    if "verbose" in request.query_params:
        service.refresh()
        policies = service.reloader.states() if service.reloader is not None else {}
        told = {"state": state, **service.parts, "policies": policies, "keys": service.ring.state}
        return _json(told, 200 if ready else 503)
    return Response(f"{state}\n", 200 if ready else 503, media_type="text/plain")


async def openapi_document(request: Request) -> Response:
    return _json(openapi())


async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    exposed = await asyncio.to_thread(service.metrics.expose)
    return Response(exposed, headers={"content-type": CONTENT_TYPE_LATEST})


ROUTES = (
    *(Route(f"/v1{form.path}", guarded(form), methods=["POST"]) for form in (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)),
    Route("/v1/moderations", observed("moderations", moderations), methods=["POST"]),
    Route("/v1/guardrails/check", observed("guardrails_check", check), methods=["POST"]),
    Route("/beta/litellm_basic_guardrail_api", observed("litellm_guardrail", litellm), methods=["POST"]),
    Route("/v1/models", models, methods=["GET"]),
    Route("/v1/models/{model:path}", model, methods=["GET"]),
    Route("/openapi.json", openapi_document, methods=["GET"]),
    Route("/v1/feedback", _with_key(feedback), methods=["POST"]),
    Route("/v1/feedback", _with_key(opinions, "admin"), methods=["GET"]),
    Route("/v1/probes", _with_key(probes, "admin"), methods=["POST"]),
    Route("/v1/probes", _with_key(probe_runs, "admin"), methods=["GET"]),
    Route("/v1/decisions", _with_key(decisions, "admin"), methods=["GET"]),
    Route("/v1/policies", _with_key(policies, "admin"), methods=["GET"]),
    *CONSOLE,
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
)
