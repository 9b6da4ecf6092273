"""The endpoints of models, one path for all of them: bytes in, the pipeline, bytes out. Unary and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.call import Call, Chunk, Form, dump
from gateway.errors import GatewayError
from gateway.http import errors
from gateway.http.events import Events, attended
from gateway.http.exchange import headers, read_body, request_id
from gateway.http.middleware import UNTIL
from gateway.http.requests import parse
from gateway.http.service import Service, Visit
from gateway.pipeline import Pipeline
from gateway.record.observation import Observation

Endpoint = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, Visit], Awaitable[Response]]


def observed(endpoint: str, answer: Answer) -> Endpoint:
    """An endpoint that asks for a client key, and counts how it ends.

    Every reply, errors included, carries `x-request-id` and the decision's headers.
    """

    async def handle(request: Request) -> Response:
        service: Service = request.app.state.service
        seen = service.observe(endpoint, request_id(request), request.headers)
        try:
            visit = service.visit(request.headers, seen)
            await service.limiter.admit(visit.caller, seen, request.scope[UNTIL])
            return await answer(request, visit)
        except GatewayError as error:
            return failed(error, seen)
        except ClientDisconnect:
            seen.finish("cancelled")
            return Response(status_code=499)
        except asyncio.CancelledError:
            seen.finish("cancelled")
            raise
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the client sees no trace of it
            structlog.get_logger().error("request failed", request_id=seen.request_id, exc_info=error)
            seen.failed(type(error).__name__)
            seen.finish()
            return Response(dump(errors.INTERNAL), 500, media_type="application/json", headers=headers(seen))

    return handle


def guarded(form: Form) -> Endpoint:
    """The endpoint of an API: every request to it goes through the pipeline."""

    async def answer(request: Request, visit: Visit) -> Response:
        limits, seen = visit.config.limits, visit.seen
        raw = await read_body(request, limits.body_bytes)
        on_block = request.headers.get("x-guardrail-on-block") or visit.on_block
        call = parse(form, raw, limits, seen.request_id, on_block)
        seen.stream, seen.model = call.stream, call.model
        await visit.admit(call, request.scope[UNTIL])
        pipeline = visit.way(call)
        if call.stream:
            return await _streamed(request, pipeline, call, seen, visit.config.keepalive_seconds)
        return await _whole(request, pipeline, call, seen)

    return observed(form.endpoint, answer)


async def _whole(request: Request, pipeline: Pipeline, call: Call, seen: Observation) -> Response:
    completion = await attended(request.receive, pipeline.answer(call, seen))
    await seen.settle()
    if seen.decision == "block" and call.on_block == "error" and "guardrails" in completion.body:
        return blocked(completion.body["guardrails"], seen)
    seen.finish()
    return Response(completion.payload(), media_type="application/json", headers=headers(seen))


async def _streamed(
    request: Request, pipeline: Pipeline, call: Call, seen: Observation, keepalive_seconds: float
) -> Response:
    """The first chunk is awaited before the status goes out, so that an early failure has its right status.

    Not for ever: once the model has begun, and what it says is held, the status goes out and comments follow.
    """
    chunks = pipeline.stream(call, seen)
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        while not first.done() and not seen.answered:
            await attended(request.receive, _wait(first, keepalive_seconds))
        if not first.done():
            await attended(request.receive, _wait(first, keepalive_seconds))
        if first.done():
            await seen.settle()
        if first.done() and seen.decision == "block" and call.on_block == "error":
            begun = first.result()
            rest = [*([begun] if begun else []), *[chunk async for chunk in chunks]]
            return blocked(_why(rest), seen)
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await chunks.aclose()
        raise
    return Events(call, first, chunks, seen, headers(seen), keepalive_seconds)


async def _wait(task: asyncio.Future[Any], seconds: float) -> None:
    await asyncio.wait((task,), timeout=seconds)


def _why(chunks: list[Chunk]) -> Any:
    """The `guardrails` object of a stream that was blocked."""
    bodies = [chunk.body for chunk in chunks]
    found = [body["guardrails"] for body in bodies if "guardrails" in body]
    found += [body["response"]["guardrails"] for body in bodies if "guardrails" in (body.get("response") or {})]
    return found[0]


def blocked(guardrails: Any, seen: Observation) -> Response:
    """A block as an error, for those who asked for one."""
    seen.finish()
    content = errors.content_filter(guardrails, "The message was filtered by the content policy of this service.")
    return Response(dump(content), 400, media_type="application/json", headers=headers(seen))


def failed(error: GatewayError, seen: Observation) -> Response:
    """An error in OpenAI's shape."""
    seen.failed(type(error).__name__)
    seen.finish()
    status, content, extra = errors.reply(error)
    return Response(dump(content), status, media_type="application/json", headers={**headers(seen), **extra})
