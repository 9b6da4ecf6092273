"""Pure ASGI middleware: what is in flight, and a clear error where there is no such route."""

from __future__ import annotations

from contextlib import AsyncExitStack

from prometheus_client import Gauge
from starlette.types import ASGIApp, Receive, Scope, Send

# Where a request's scope has what is to be done when it ends, its reply sent or its client gone.
UNTIL = "hhh.until"


class Inflight:
    """Counts API requests in progress; probes and scrapes are not requests."""

    def __init__(self, app: ASGIApp, gauge: Gauge) -> None:
        self._app = app
        self._gauge = gauge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/beta/")):
            await self._app(scope, receive, send)
            return
        self._gauge.inc()
        try:
            async with AsyncExitStack() as until:
                scope[UNTIL] = until
                await self._app(scope, receive, send)
        finally:
            self._gauge.dec()
