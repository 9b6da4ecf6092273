"""`hhh serve`: uvicorn around the app, with a drain before the stop so that load balancers see it coming."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from gateway.app import create_app
from gateway.config import Config
from gateway.http.service import Service
from gateway.record import logs


class Server(uvicorn.Server):
    """On SIGTERM: /readyz turns 503 while requests are still taken for `drain_seconds`, then uvicorn's own stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        drain_seconds: float,
        serving: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._serving = serving
        self._service = service
        self._drain_seconds = drain_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Ours besides: SIGHUP loads the policies anew; and say that requests are taken."""
        await super().startup(sockets)
        if self._service.reloader is not None and hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._service.reloader.ask)
        if self.started and self._serving is not None:
            self._serving()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._service.draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        structlog.get_logger().info("draining", seconds=self._drain_seconds)
        timer = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


@dataclass(frozen=True, slots=True)
class Part:
    """One of several workers: the socket that all share, what to call when it serves, where all keep their metrics.

    `replaces`: one that has died.
    """

    listener: socket.socket
    serving: Callable[[], None]
    metrics: Path
    replaces: bool


def run(config: Config, part: Part | None = None) -> None:
    """Serve until told to stop. Exits with 2 when the configuration cannot be served."""
    logs.configure(config.log_level)
    app = create_app(config, shared=part.metrics if part is not None else None)
    if part is not None and part.replaces:
        app.state.service.metrics.count("worker_restarts_total")
    server = Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http="httptools",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=30,
        ),
        app.state.service,
        config.drain_seconds,
        part.serving if part is not None else None,
    )
    service: Service = app.state.service
    # uvicorn would log a traceback where one line says what is wrong with the configuration.
    logging.getLogger("uvicorn.error").addFilter(lambda record: service.failure is None)
    try:
        server.run([part.listener] if part is not None else None)
    except SystemExit:
        if service.failure is None:
            raise
    if service.failure is not None:
        print(service.failure, file=sys.stderr)
        raise SystemExit(2)
