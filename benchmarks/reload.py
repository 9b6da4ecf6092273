"""python benchmarks/reload.py: how long an edit takes to be used, and what a candidate that looks on costs.

A real `hhh serve` with the shipped classifier and a copy of `rails/finance`; the model server and the clients are in
this process, on the same cores. Prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def texts() -> list[str]:
    rows: list[Any] = []
    for path in sorted((ROOT / "finetune/data/authored/dialogues").glob("*.jsonl")):
        rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][0]["content"] for row in rows]


@asynccontextmanager
async def gateway(folder: Path, upstream: str, **settings: str) -> AsyncIterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HHH_")}
    clean |= {"HHH_UPSTREAM__BASE_URL": f"{upstream}/v1", "HHH_RAILS_DIR": str(folder / "rails")}
    clean |= {"HHH_AUDIT__URL": f"sqlite+aiosqlite:///{folder}/audit.db", "HHH_PROBES__EVERY_SECONDS": "0"}
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("hhh"),
        "serve",
        "--port",
        str(port),
        env={**clean, **settings},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(600):
                try:
                    async with session.get(f"{url}/readyz") as reply:
                        if reply.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


class Load:
    """Requests at a steady rate, whatever becomes of them."""

    def __init__(self, url: str, rate: float) -> None:
        self.url = url
        self.rate = rate
        self.taken: list[float] = []
        self.failed = 0
        self._texts = texts()
        self._number = 0

    async def run(self, seconds: float) -> None:
        tasks = []
        async with aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(limit=0)) as session:
            begun = time.perf_counter()
            while time.perf_counter() - begun < seconds:
                tasks.append(asyncio.create_task(self._one(session)))
                self._number += 1
                await asyncio.sleep(max(0.0, begun + self._number / self.rate - time.perf_counter()))
            await asyncio.gather(*tasks)

    async def _one(self, session: aiohttp.ClientSession) -> None:
        text = self._texts[self._number % len(self._texts)]
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        began = time.perf_counter()
        try:
            async with session.post("/v1/chat/completions", json=body) as reply:
                await reply.read()
                self.failed += reply.status != 200
        except aiohttp.ClientError:
            self.failed += 1
        self.taken.append((time.perf_counter() - began) * 1e3)

    def quantiles(self) -> str:
        points = statistics.quantiles(self.taken, n=100)
        shown = f"p50 {points[49]:6.1f}  p95 {points[94]:6.1f}  p99 {points[98]:6.1f} ms"
        return f"{shown}  ({len(self.taken)}, {self.failed} failed)"


def edit(path: Path, number: int) -> None:
    path.write_text(path.read_text(encoding="utf-8") + f"# edit {number}\n", encoding="utf-8")


async def edit_to_use(url: str, path: Path, edits: int) -> list[float]:
    """Seconds from the end of each edit to the first reply under the new version."""
    found = []
    async with aiohttp.ClientSession(url) as session:

        async def version() -> str:
            body = {"messages": [{"role": "user", "content": "Hello"}]}
            async with session.post("/v1/guardrails/check", json=body) as reply:
                return str((await reply.json())["policy"]["version"])

        for number in range(edits):
            before = await version()
            edit(path, number)
            began = time.perf_counter()
            while True:
                if await version() != before:
                    break
                await asyncio.sleep(0.005)
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.5)
    return found


async def main(seconds: float, rate: float, edits: int) -> None:
    from tests.conftest import Running
    from tests.fakes import Recorder

    upstream = Running(Recorder())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copytree(ROOT / "rails", folder / "rails")
        policy = folder / "rails" / "finance" / "policy.yml"
        async with gateway(folder, upstream.url) as (url, _):
            taken = await edit_to_use(url, policy, edits)
            print(f"edit to use, idle:        median {statistics.median(taken):.2f} s, longest {max(taken):.2f} s")
            load = Load(url, rate)
            running = asyncio.create_task(load.run(edits * 1.5))
            taken = await edit_to_use(url, policy, edits)
            await running
            print(f"edit to use, {rate:g} req/s:   median {statistics.median(taken):.2f} s, longest {max(taken):.2f} s")
            print(f"  requests meanwhile:     {load.quantiles()}")
        shutil.copytree(folder / "rails" / "finance", folder / "next")
        (folder / "next" / "policy.yml").write_text(
            policy.read_text(encoding="utf-8").replace("balanced", "permissive"), encoding="utf-8"
        )
        own = str(ROOT / "classifiers" / "weights" / "triage")
        for name, settings in (
            ("no candidate", {}),
            ("policy, share 0.1", {"HHH_SHADOW__POLICY": str(folder / "next")}),
            ("policy, share 1", {"HHH_SHADOW__POLICY": str(folder / "next"), "HHH_SHADOW__SHARE": "1"}),
            ("weights, share 0.1", {"HHH_SHADOW__WEIGHTS": own}),
            ("weights, share 1", {"HHH_SHADOW__WEIGHTS": own, "HHH_SHADOW__SHARE": "1"}),
            ("no candidate", {}),
        ):
            async with gateway(folder, upstream.url, **settings) as (url, pid):
                load = Load(url, rate)
                await load.run(2)
                load.taken.clear()
                before = cpu_ms(pid)
                await load.run(seconds)
                cpu = (cpu_ms(pid) - before) / len(load.taken)
                print(f"{name:20} {load.quantiles()}  {cpu:5.1f} ms of CPU each  {await looked(url)}")
    upstream.stop()


def cpu_ms(pid: int) -> float:
    """What a process has used, whatever else runs on the machine."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system) * 1e3


async def looked(url: str) -> str:
    """How many requests the candidate looked at, and how many it could not."""
    async with aiohttp.ClientSession(url) as session, session.get("/metrics") as reply:
        lines = (await reply.text()).splitlines()
    counts = {
        name: sum(float(line.split()[-1]) for line in lines if line.startswith(f"hhh_shadow_{name}_total{{"))
        for name in ("decisions", "dropped")
    }
    return f"looked at {counts['decisions']:.0f}, dropped {counts['dropped']:.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--edits", type=int, default=10)
    given = parser.parse_args()
    asyncio.run(main(given.seconds, given.rate, given.edits))
