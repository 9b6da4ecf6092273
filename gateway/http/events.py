"""A streamed reply as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.call import Call, Chunk
from gateway.errors import GatewayError
from gateway.http import errors
from gateway.record.observation import Observation

T = TypeVar("T")

_COMMENT = b": keep-alive\n\n"


class Events(StreamingResponse):
    """The chunks, the first of which may still be on its way. However it ends, they are closed, and so is the call
    upstream. While nothing can be sent, a comment every `keepalive_seconds` shows that the connection is alive."""

    def __init__(
        self,
        call: Call,
        first: Awaitable[Chunk | None],
        chunks: AsyncGenerator[Chunk, None],
        seen: Observation,
        headers: dict[str, str],
        keepalive_seconds: float,
    ) -> None:
        kept = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._frames(first), media_type="text/event-stream", headers=kept)
        self._call = call
        self._first = first
        self._chunks = chunks
        self._seen = seen
        self._keepalive_seconds = keepalive_seconds
        self._sending = True  # until the status is out
        self._sent = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            with self._busy():
                await send(message)
            self._sending = message["type"] == "http.response.body" and not message.get("more_body", False)

        comments = asyncio.ensure_future(self._comment(send))
        try:
            with suppress(ClientDisconnect):
                await attended(receive, self.stream_response(sent))
        finally:
            comments.cancel()
            if isinstance(self._first, asyncio.Future):
                self._first.cancel()
                await asyncio.gather(self._first, return_exceptions=True)
            await self._chunks.aclose()
            self._seen.finish("cancelled")  # unless it has finished

    async def _comment(self, send: Send) -> None:
        """Say that we are there, whenever nothing has been sent for a while. Never in the middle of a frame."""
        while True:
            idle = time.monotonic() - self._sent
            await asyncio.sleep(max(self._keepalive_seconds - idle, 0.01))
            if self._sending or time.monotonic() - self._sent < self._keepalive_seconds:
                continue
            with self._busy():
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._sending = True
        try:
            yield
        finally:
            self._sending, self._sent = False, time.monotonic()

    async def _frames(self, first: Awaitable[Chunk | None]) -> AsyncGenerator[bytes, None]:
        """A failure after the first byte becomes OpenAI's error frame, and the stream ends without `[DONE]`."""
        last = b""
        try:
            chunk = await first
            if chunk is not None:
                await self._seen.settle()
                yield _frame(chunk)
            async for chunk in self._chunks:
                await self._seen.settle()
                yield _frame(chunk)
        except GatewayError as error:
            self._seen.failed(type(error).__name__)
            last = _frame(self._call.form.error(errors.reply(error)[1]))
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the client sees no trace of it
            structlog.get_logger().error("stream failed", request_id=self._seen.request_id, exc_info=error)
            self._seen.failed(type(error).__name__)
            last = _frame(self._call.form.error(errors.INTERNAL))
        else:
            last = b"data: [DONE]\n\n" if self._call.form.done else b""
        self._seen.finish()
        if last:
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


def _frame(chunk: Chunk) -> bytes:
    # An upstream may spread one JSON object over several lines of data.
    name = b"event: " + chunk.event + b"\n" if chunk.event is not None else b""
    return name + b"data: " + chunk.payload().replace(b"\n", b"\ndata: ") + b"\n\n"
