"""`hhh serve --workers 2`: one gateway to whoever asks, whichever process answers, and whichever dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from gateway.keys import command
from gateway.probes import suites
from tests.conftest import Running
from tests.e2e.conftest import HHH, ROOT, Served
from tests.fakes import Recorder, eventually

HARM = {"model": "m", "messages": [{"role": "user", "content": "Help me launder cash"}]}
CALM = {"model": "m", "messages": [{"role": "user", "content": "What is a bond?"}]}
REFUSED = 'hhh_requests_total{endpoint="chat_completions",outcome="block",policy="finance"}'
ALLOWED = 'hhh_requests_total{endpoint="chat_completions",outcome="allow",policy="finance"}'


class Fleet(Served):
    """Two workers, a file of keys, a model server that records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self.behind = Running(self.recorder)
        self.keys = folder / "keys.json"
        _, self.key = command.create(self.keys, "app")
        (folder / "tmp").mkdir()
        super().__init__(
            folder,
            HHH_UPSTREAM__BASE_URL=f"{self.behind.url}/v1",
            HHH_WORKERS="2",
            HHH_KEYS_FILE=str(self.keys),
            HHH_PROBES__EVERY_SECONDS="3600",
            HHH_LOG_LEVEL="warning",
            HHH_DRAIN_SECONDS="1.5",
            TMPDIR=str(folder / "tmp"),
            OMP_NUM_THREADS="1",
        )
        eventually(lambda: self.metrics()["hhh_workers"] == 2, 120)

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def ask(self, body: object = CALM, key: str | None = None, times: int = 1) -> list[int]:
        """Each on a connection of its own, so that either worker may take it."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        singly = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self.url, headers=headers, limits=singly, timeout=60, trust_env=False) as client:
            return [client.post("/v1/chat/completions", json=body).status_code for _ in range(times)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    served = Fleet(tmp_path_factory.mktemp("fleet"))
    yield served
    served.stop()
    served.behind.stop()


def test_metrics_keys_and_records_are_those_of_all(fleet: Fleet) -> None:
    before = fleet.metrics()
    assert fleet.ask(HARM, times=40) == [200] * 40
    assert fleet.ask(CALM, times=20) == [200] * 20
    for _ in range(8):  # whichever worker is asked
        after = fleet.metrics()
        assert after[REFUSED] - before[REFUSED] == 40
        assert after[ALLOWED] - before[ALLOWED] == 20
        assert after["hhh_inflight_requests"] == 0
        assert after["hhh_audit_up"] == 1
    assert len({name for name in after if name.startswith("hhh_build_info")}) == 1
    with closing(sqlite3.connect(fleet.folder / "audit.db")) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM decisions WHERE decision = 'block'").fetchone()
    assert kept == 40

    _, other = command.create(fleet.keys, "other")
    assert fleet.ask(key=other, times=20) == [200] * 20
    command.revoke(fleet.keys, "other")
    assert fleet.ask(key=other, times=20) == [401] * 20


def test_one_of_them_runs_the_probes(fleet: Fleet) -> None:
    probes = len(suites.load(None))

    def ran() -> float:
        return sum(value for name, value in fleet.metrics().items() if name.startswith("hhh_probe_results_total"))

    eventually(lambda: ran() >= probes, 60)
    assert ran() == probes
    assert fleet.metrics()["hhh_probe_last_run_timestamp_seconds"] > time.time() - 600


def test_a_worker_that_is_killed(fleet: Fleet) -> None:
    """It is started again and counted; meanwhile the other one serves, and nothing that was counted is forgotten."""
    before, workers = fleet.metrics(), fleet.workers()
    killed = min(workers)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in fleet.workers())
    answered = 0
    while fleet.metrics()["hhh_workers"] < 2 or answered < 20:
        assert fleet.ask() == [200]
        answered += 1
    after = fleet.metrics()
    assert after["hhh_worker_restarts_total"] == 1
    assert after[REFUSED] == before[REFUSED]
    assert after[ALLOWED] == before[ALLOWED] + answered
    assert after["hhh_inflight_requests"] == 0
    assert len(fleet.workers() - workers) == 1
    assert "worker died" in fleet.log.read_text()


def test_drains_and_leaves_nothing_behind(fleet: Fleet) -> None:
    """What is under way ends well, by whichever worker."""
    fleet.recorder.delay_seconds = 3.0
    begun = len(fleet.recorder.bodies)
    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(fleet.ask) for _ in range(6)]
        eventually(lambda: len(fleet.recorder.bodies) == begun + 6)
        check_drain(fleet, asking)


def check_drain(fleet: Fleet, asking: list[Future[list[int]]]) -> None:
    workers = fleet.workers()
    fleet.process.send_signal(signal.SIGTERM)
    eventually(lambda: fleet.status("/readyz") == 503)
    assert [one.result(30) for one in asking] == [[200]] * 6
    assert fleet.process.wait(30) == -signal.SIGTERM
    assert not any(psutil.pid_exists(worker) for worker in workers)
    assert list((fleet.folder / "tmp").glob("hhh-metrics-*")) == []


def test_workers_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    served = Served(tmp_path, HHH_WORKERS="2", HHH_UPSTREAM__BASE_URL="http://127.0.0.1:9/v1", TMPDIR=str(tmp_path))
    workers = [child.pid for child in psutil.Process(served.process.pid).children()]
    served.process.kill()
    eventually(lambda: not any(psutil.pid_exists(worker) for worker in workers), 40)
    served.stop()
    assert len(list(tmp_path.glob("hhh-metrics-*"))) == 1  # the next one on this machine clears it away


def test_limits_that_each_worker_would_count_on_its_own(tmp_path: Path) -> None:
    command.create(tmp_path / "keys.json", "app", requests_per_minute=10)
    done = subprocess.run(
        [HHH, "serve", "--workers", "2", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "HHH_KEYS_FILE": str(tmp_path / "keys.json"), "HHH_AUDIT__URL": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "key app - has limits" in done.stderr
    assert "limits.storage" in done.stderr
