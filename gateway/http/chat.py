"""POST /v1/chat/completions: bytes in, the pipeline, bytes out. Unary and streamed."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.chat import Chat, Chunk, dump
from gateway.errors import BadRequest, GatewayError, TooLarge
from gateway.http import errors
from gateway.http.requests import parse_chat
from gateway.http.service import Service
from gateway.pipeline import Pipeline
from gateway.record.observation import Observation

T = TypeVar("T")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


async def chat_completions(request: Request) -> Response:
    """The endpoint. Every reply, errors included, carries `x-request-id` and the decision's headers."""
    service: Service = request.app.state.service
    seen = service.observe("chat_completions", request_id(request))
    try:
        service.keys.check(request.headers.get("authorization"))
        pipeline = service.loaded()
        raw = await read_body(request, service.config.limits.body_bytes)
        on_block = request.headers.get("x-guardrail-on-block") or pipeline.guard.policy.rules.on_block
        chat = parse_chat(raw, service.config.limits, seen.request_id, on_block)
        seen.stream = chat.stream
        if chat.stream:
            return await _streamed(request, pipeline, chat, seen)
        return await _whole(request, pipeline, chat, seen)
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


async def _whole(request: Request, pipeline: Pipeline, chat: Chat, seen: Observation) -> Response:
    completion = await attended(request.receive, pipeline.answer(chat, seen))
    await seen.settle()
    if seen.decision == "block" and chat.on_block == "error" and "guardrails" in completion.body:
        return blocked(completion.body["guardrails"], seen)
    seen.finish()
    return Response(completion.payload(), media_type="application/json", headers=headers(seen))


async def _streamed(request: Request, pipeline: Pipeline, chat: Chat, seen: Observation) -> Response:
    """The first chunk is awaited before the status goes out, so that an early failure has its right status."""
    chunks = pipeline.stream(chat, seen)
    first = await attended(request.receive, anext(chunks, None))
    try:
        await seen.settle()
    except GatewayError:
        await chunks.aclose()
        raise
    if seen.decision == "block" and chat.on_block == "error":
        rest = [chunk async for chunk in chunks]
        why = next(chunk.body["guardrails"] for chunk in rest if "guardrails" in chunk.body)
        return blocked(why, seen)
    return Events(first, chunks, seen)


class Events(StreamingResponse):
    """The chunks as server-sent events. However it ends, the chunks are closed, and so is the call upstream."""

    def __init__(self, first: Chunk | None, chunks: AsyncGenerator[Chunk, None], seen: Observation) -> None:
        super().__init__(
            self._frames(first),
            media_type="text/event-stream",
            headers={**headers(seen), "cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._chunks = chunks
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnect):
                await attended(receive, self.stream_response(send))
        finally:
            await self._chunks.aclose()
            self._seen.finish("cancelled")  # unless it has finished

    async def _frames(self, first: Chunk | None) -> AsyncGenerator[bytes, None]:
        """A failure after the first byte becomes OpenAI's error frame, and the stream ends without `[DONE]`."""
        try:
            if first is not None:
                yield _frame(first.payload())
            async for chunk in self._chunks:
                await self._seen.settle()
                yield _frame(chunk.payload())
        except GatewayError as error:
            self._seen.failed(type(error).__name__)
            last = _frame(dump(errors.reply(error)[1]))
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the client sees no trace of it
            structlog.get_logger().error("stream failed", request_id=self._seen.request_id, exc_info=error)
            self._seen.failed(type(error).__name__)
            last = _frame(dump(errors.INTERNAL))
        else:
            last = _frame(b"[DONE]")
        self._seen.finish()
        yield last


async def attended(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`. When the client leaves first, it is cancelled and `ClientDisconnect` raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _frame(payload: bytes) -> bytes:
    # An upstream may spread one JSON object over several lines of data.
    return b"data: " + payload.replace(b"\n", b"\ndata: ") + b"\n\n"


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
    found = {
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
