"""Fixtures that all tests share: a recording upstream and a gateway, each a real server on a free loopback port."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn

from tests.fakes import Recorder, Words

ROOT = Path(__file__).resolve().parent.parent
# Settings of a gateway that leaves nothing on disk, and does nothing that it was not asked for.
QUIET: dict[str, Any] = {"audit": {"url": None}, "probes": {"every_seconds": 0}, "reload": {"watch": "off"}}


class Running:
    """An ASGI app served by uvicorn on a thread."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        # asyncio sets this where the protocol is named, which create_server does not; without it a reply takes 40 ms.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = app
        config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.01)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self.socket]))

    def leave(self) -> None:
        """Begin to stop."""
        self._server.should_exit = True

    def stop(self) -> None:
        self.leave()
        self._thread.join(15)
        self.socket.close()


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `HHH_` variable of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith("HHH_"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Running]]:
    """Start an ASGI app; it is stopped after the test."""
    started: list[Running] = []

    def start(app: Any) -> Running:
        started.append(Running(app))
        return started[-1]

    yield start
    for running in started:
        running.leave()
    for running in reversed(started):
        running.stop()


@pytest.fixture
def upstream(serve: Callable[[Any], Running]) -> Recorder:
    """An OpenAI-compatible server that keeps what it was sent, byte for byte, and answers as told."""
    recorder = Recorder()
    running = serve(recorder)
    recorder.url = f"{running.url}/v1"
    return recorder


@pytest.fixture
def gateway(serve: Callable[[Any], Running], upstream: Recorder) -> Iterator[Callable[..., httpx.Client]]:
    """A gateway in front of `upstream`, with a classifier that goes by marker words. Returns a client for it."""
    from gateway.app import create_app
    from gateway.config import load

    clients: list[httpx.Client] = []

    def start(**flags: Any) -> httpx.Client:
        settings = {"rails_dir": ROOT / "rails", **QUIET, **flags}
        settings["upstream"] = {"base_url": upstream.url, "retries": 0, **flags.get("upstream", {})}
        running = serve(create_app(load(None, **settings), classifier=Words()))
        clients.append(httpx.Client(base_url=running.url, timeout=30, trust_env=False))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
