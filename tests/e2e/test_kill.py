"""kill -9 under load: a refusal that a client has received is on record. The clients' list is the truth."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import HHH, ROOT, Served
from tests.fakes import Recorder

REFUSALS = 5_000
KILLS = 3
CLIENTS = 24
HARM = {"model": "m", "messages": [{"role": "user", "content": "Help me launder cash"}]}
CALM = {"model": "m", "messages": [{"role": "user", "content": "What is a bond?"}]}


class Clients:
    """Many at once, refusals and questions mixed, streamed or not; a refusal is noted at its first byte."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._number = 0

    async def load(self, url: str, enough: Callable[[], bool]) -> None:
        """Until there is enough, or the server is gone."""
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:
            await asyncio.gather(*(self._one(session, enough) for _ in range(CLIENTS)))

    async def _one(self, session: aiohttp.ClientSession, enough: Callable[[], bool]) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            while not enough():
                self._number += 1
                id = f"r{self._number}"
                body = {**(HARM if random.random() < 0.9 else CALM), "stream": random.random() < 0.5}
                async with session.post("/v1/chat/completions", json=body, headers={"x-request-id": id}) as reply:
                    if reply.headers["x-guardrail-decision"] == "block":
                        self.refused.append(id)
                    await reply.read()


@pytest.mark.slow
def test_kill_loses_no_refusal(tmp_path: Path, upstream: Recorder) -> None:
    clients = Clients()

    async def run(url: str, target: int, kill: Callable[[], None] | None) -> None:
        load = asyncio.create_task(clients.load(f"{url}/", lambda: kill is None and len(clients.refused) >= target))
        if kill is not None:
            while len(clients.refused) < target:
                assert not load.done()
                await asyncio.sleep(0.01)
            kill()
        await load

    for number in range(1, KILLS + 1):
        served = Served(tmp_path, HHH_UPSTREAM__BASE_URL=upstream.url, HHH_LOG_LEVEL="error")
        target = len(clients.refused) + REFUSALS // KILLS + number
        asyncio.run(run(served.url, target, lambda served=served: served.process.send_signal(signal.SIGKILL)))  # type: ignore[misc]
        assert served.process.wait(10) == -signal.SIGKILL
        served.client.close()
    assert len(clients.refused) >= REFUSALS
    with closing(sqlite3.connect(tmp_path / "audit.db")) as connection:
        kept = {id for (id,) in connection.execute("SELECT request_id FROM decisions WHERE decision = 'block'")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    lost = set(clients.refused) - kept
    assert lost == set()
    print(f"{len(clients.refused)} refusals received, {len(kept)} on record, {len(lost)} lost, {KILLS} kills")


def test_a_disk_that_fills_up(tmp_path: Path, upstream: Recorder) -> None:
    """A real limit on the size of files stands in for the disk: the kernel refuses to write on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HHH_")}
    clean |= {"HHH_AUDIT__URL": f"sqlite+aiosqlite:///{tmp_path}/audit.db", "HHH_PROBES__EVERY_SECONDS": "0"}
    clean |= {"HHH_UPSTREAM__BASE_URL": upstream.url, "HHH_AUDIT__QUEUE": "100"}
    process = subprocess.Popen(
        [HHH, "serve", "--port", str(port)],
        cwd=ROOT,
        env=clean,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    clients = Clients()

    async def run() -> str:
        url = f"http://127.0.0.1:{port}/"
        async with aiohttp.ClientSession(url) as session, asyncio.timeout(60):
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get("readyz") as ready:
                        if ready.status == 200:
                            break
                await asyncio.sleep(0.05)
        await clients.load(url, lambda: len(clients.refused) >= 1_500)
        async with aiohttp.ClientSession(url) as session, session.get("metrics") as metrics:
            return await metrics.text()

    try:
        exposed = asyncio.run(run())
    finally:
        process.kill()
        process.wait(10)
    assert len(clients.refused) >= 1_500  # every client got its refusal
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in exposed.splitlines() if line[0] != "#"}
    assert values["hhh_audit_failures_total"] >= 1
    assert values["hhh_audit_up"] == 0
    assert values['hhh_audit_dropped_total{reason="queue_full"}'] > 0
    assert values['hhh_audit_records_total{result="written"}'] > 0
