"""`hhh serve` as a process: one line when it cannot start, a drain when it is told to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.conftest import QUIET, ROOT
from tests.fakes import Recorder, eventually, spoken
from tests.gateway.http.conftest import HELLO

# `hhh serve` with these settings, but with the classifier that goes by marker words.
LAUNCH = """
import functools, json, sys
import gateway.server
from gateway.config import load
from tests.fakes import Words
gateway.server.create_app = functools.partial(gateway.server.create_app, classifier=Words())
gateway.server.run(load(None, **json.loads(sys.argv[1])))
"""


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("HHH_")}
    return {**clean, "PYTHONPATH": str(ROOT), **more}


def hhh(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=120, check=False
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Served:
    """A process that serves, with its log."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, json.dumps({"port": self.port, **QUIET, **settings})],
                cwd=ROOT,
                env=environment(),
                stderr=log,
                stdout=log,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        eventually(lambda: self.status("/readyz") == 200, 120)

    def status(self, path: str) -> int:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@pytest.fixture
def served(tmp_path: Path, upstream: Recorder) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(**settings: object) -> Served:
        started.append(Served(tmp_path, upstream={"base_url": upstream.url, "retries": 0}, **settings))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_drains_before_it_stops(served: Callable[..., Served], upstream: Recorder) -> None:
    one = served(drain_seconds=2.5)
    quick = min(_seconds(lambda: one.client.get("/livez")) for _ in range(20))
    assert quick < 0.03  # 40 ms would be Nagle's algorithm waiting for an acknowledgement

    upstream.delay_seconds = 3.5
    upstream.chunks = spoken("An index fund ", "follows an index.")
    replies: dict[bool, httpx.Response] = {}

    def ask(stream: bool) -> None:
        replies[stream] = httpx.post(
            f"http://127.0.0.1:{one.port}/v1/chat/completions",
            json={**HELLO, "stream": stream},
            timeout=60,
            trust_env=False,
        )

    asking = [threading.Thread(target=ask, args=[stream]) for stream in (False, True)]
    for thread in asking:
        thread.start()
    eventually(lambda: len(upstream.bodies) == 2)
    upstream.delay_seconds = 0.0

    one.process.send_signal(signal.SIGTERM)
    eventually(lambda: one.status("/readyz") == 503)
    assert one.client.get("/readyz").text == "draining\n"
    assert one.client.get("/livez").status_code == 200
    assert one.client.post("/v1/chat/completions", json=HELLO).status_code == 200  # taken while it drains

    for thread in asking:
        thread.join(60)
    assert replies[False].status_code == 200
    assert replies[False].json() == upstream.reply
    assert replies[True].text.endswith("data: [DONE]\n\n")
    assert one.process.wait(30) == -signal.SIGTERM
    events = [json.loads(line)["event"] for line in one.log.read_text().splitlines()]
    assert events[0] == "ready"
    assert sorted(events) == ["draining", "ready", "request", "request", "request"]
    assert "index fund" not in one.log.read_text()


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_port_that_is_taken_and_an_interrupt(served: Callable[..., Served]) -> None:
    one = served(drain_seconds=60)
    settings = {"port": one.port, "upstream": {"base_url": "http://127.0.0.1:9/v1"}}
    other = subprocess.run(
        [sys.executable, "-c", LAUNCH, json.dumps(settings)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert other.returncode == 3
    assert "Traceback" not in other.stderr
    assert "address already in use" in other.stderr
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(30) in (-signal.SIGINT, 130, 1, 0)  # at once, whatever the drain


def test_policy_that_is_wrong(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "rails" / "finance", tmp_path / "rails" / "finance")
    path = tmp_path / "rails" / "finance" / "policy.yml"
    path.write_text(path.read_text().replace("mode: enforce", "routes: {harmfull: {refuse: 0.7}}"))
    done = hhh("serve", "--port", str(free_port()), cwd=tmp_path, HHH_UPSTREAM__BASE_URL="http://127.0.0.1:9/v1")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("rails/finance/policy.yml: routes.harmfull - unknown label")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_configuration_that_is_wrong(tmp_path: Path) -> None:
    done = hhh("serve", "--config", str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path}/none.yaml: no such file\n"
