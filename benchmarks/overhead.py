"""python benchmarks/overhead.py [--seconds 8] [--rounds 3] [--concurrency 16] [--pin] [--json FILE]

What the guard costs: requests per second and latency through the gateway (one process, triage and rails on), as
ratios to the same through (a) a bare FastAPI route that forwards with aiohttp, and (b) our own app with the guard
taken out. All three stand in front of the same mock model server and take turns within one run. Messages are
the benign first turns of our authored dialogues, on most of which triage was trained; the memory of verdicts is off.

With --pin the server under test has one core and load generator and mock upstream share another; without, the system
places them, and the classifier's thread may run beside the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

ROOT = Path(__file__).resolve().parent.parent
REPLY = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "An index fund follows a market index. " * 6},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(REPLY), REPLY)


class Mock(asyncio.Protocol):
    """A model server that answers every POST with the same completion."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            head = self.pending[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.pending) < end + 4 + length:
                return
            self.pending = self.pending[end + 4 + length :]
            self.transport.write(ANSWER)


@dataclass
class Result:
    """One round: requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})


def serve(make: Callable[[str], Any], upstream: str, port: int, pinned: bool) -> None:
    import uvicorn

    if pinned:
        pin(0)
    os.chdir(ROOT)
    uvicorn.run(make(upstream), port=port, log_level="error", access_log=False, loop="uvloop", http="httptools")


def bare(upstream: str) -> Any:
    """A FastAPI route that forwards with aiohttp, and nothing else."""
    import aiohttp

    app = FastAPI()
    session: list[aiohttp.ClientSession] = []

    @app.post("/v1/chat/completions")
    async def forward(request: Request) -> Response:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.body()
        headers = {"content-type": "application/json"}
        async with session[0].post(f"{upstream}/chat/completions", data=body, headers=headers) as reply:
            return Response(await reply.read(), reply.status, media_type="application/json")

    return app


def guarded(upstream: str) -> Any:
    """The gateway as shipped."""
    from gateway.app import create_app
    from gateway.config import load
    from gateway.record import logs

    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the log is written, and goes nowhere
    logs.configure("info")
    quiet = {"audit": {"url": None}, "probes": {"every_seconds": 0}, "reload": {"watch": "off"}}
    return create_app(load(None, upstream={"base_url": upstream}, triage={"memory": 0}, **quiet))


def unguarded(upstream: str) -> Any:
    """The gateway with its guard taken out."""
    app = guarded(upstream)
    inner = app.router.lifespan_context

    from gateway.guard.rails import Guard

    class NoGuard(Guard):
        async def plan(self, chat: Any, seen: Any) -> Any:
            return None

        async def check_input(self, chat: Any, plan: Any, seen: Any) -> Any:
            return chat

        async def check_output(self, chat: Any, completion: Any, plan: Any, seen: Any) -> Any:
            return completion

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with inner(app):
            policies = app.state.service.policies
            policies.swap({policies.default: NoGuard(policies.get()._checks)})
            yield

    app.router.lifespan_context = lifespan
    return app


def texts() -> list[str]:
    """The first turns of our authored dialogues that ask for nothing unusual: a finance assistant's benign traffic."""
    rows = []
    for path in sorted((ROOT / "finetune/data/authored/dialogues").glob("*.jsonl")):
        rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][0]["content"] for row in rows if row["control"] == "comply"]


async def load(port: int, seconds: float, concurrency: int, said: list[str], seed: int) -> Result:
    """Send benign chats for some seconds over `concurrency` connections."""
    chance = random.Random(seed)
    deadline = time.perf_counter() + seconds
    latencies: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            text = chance.choice(said)
            body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": text}]}).encode()
            began = time.perf_counter()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return Result(len(latencies) / elapsed, cuts[49] * 1e3, cuts[98] * 1e3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    mock = await loop.create_server(Mock, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{mock.sockets[0].getsockname()[1]}/v1"
    if arguments.pin:
        pin(1)
    said = texts()
    kinds: dict[str, Callable[[str], Any]] = {"bare": bare, "unguarded": unguarded, "guarded": guarded}
    ports = {name: free_port() for name in kinds}
    context = multiprocessing.get_context("spawn")
    servers = [
        context.Process(target=serve, args=(make, upstream, ports[name], arguments.pin)) for name, make in kinds.items()
    ]
    for server in servers:
        server.start()
    try:
        for port in ports.values():
            await up(port)
        rounds: dict[str, list[Result]] = {name: [] for name in kinds}
        single: dict[str, list[Result]] = {name: [] for name in kinds}
        for number in range(arguments.rounds):
            for name in kinds:
                await load(ports[name], 1, arguments.concurrency, said, number)  # warm
                seconds = arguments.seconds
                rounds[name].append(await load(ports[name], seconds, arguments.concurrency, said, 100 + number))
                single[name].append(await load(ports[name], seconds / 2, 1, said, 200 + number))
    finally:
        for server in servers:
            server.terminate()
    return {"concurrency": arguments.concurrency, **summary(rounds, single)}


async def up(port: int) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit("a server did not start")


def summary(rounds: dict[str, list[Result]], single: dict[str, list[Result]]) -> dict[str, Any]:
    """Medians over the rounds, and ratios to `bare` and `unguarded`."""
    out: dict[str, Any] = {}
    for name, results in rounds.items():
        out[name] = {
            "requests_per_second": round(statistics.median(r.rate for r in results), 1),
            "p50_ms": round(statistics.median(r.p50 for r in results), 2),
            "p99_ms": round(statistics.median(r.p99 for r in results), 2),
            "one_client_p50_ms": round(statistics.median(r.p50 for r in single[name]), 2),
            "one_client_p99_ms": round(statistics.median(r.p99 for r in single[name]), 2),
        }
    for base in ("bare", "unguarded"):
        out[f"guarded/{base}"] = {key: round(out["guarded"][key] / out[base][key], 3) for key in out["guarded"]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments))
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
