"""python benchmarks/first_token.py [--requests 20] [--tokens-per-second 50 200] [--json FILE]

Time to the first token of an answer, through the gateway and without it, in one run: in milliseconds and as a ratio,
for some settings of the streaming window. A mock model server answers after 100 ms and then says a word at a time, at
the given rate. The first token is the first event with content that reaches the client. Requests take turns, so that
whatever else the machine does is shared. What a check costs is small; what the gateway adds is the text that it holds:
`overlap_characters` and the rest of a window, at the speed at which the model talks. The policy is rails/general, which
looks for no pattern in replies; one that does holds back at least as much as its longest pattern.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
THINKS_SECONDS = 0.1
WORDS = (
    "An",
    "index",
    "fund",
    "follows",
    "a",
    "market",
    "index",
    "and",
    "holds",
    "what",
    "the",
    "index",
    "holds.",
) * 12
WINDOWS = ((24, 64), (12, 32), (8, 16), (1, 0))
PATH = "/v1/chat/completions"


async def mock(scope: Any, receive: Any, send: Any) -> None:
    """A model server that says `WORDS`, at the rate that the request names."""
    body = json.loads((await receive())["body"])
    await asyncio.sleep(THINKS_SECONDS)
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    pieces: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    pieces += [({"content": f"{word} "}, None) for word in WORDS]
    for delta, finish in [*pieces, ({}, "stop")]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(chunk)}\n\n".encode(), "more_body": True})
        await asyncio.sleep(1 / body["tokens_per_second"])
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def serve(upstream: str | None, rails: str, port: int) -> None:
    import uvicorn

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  logs go nowhere
    app: Any = mock
    if upstream is not None:
        from gateway.app import create_app
        from gateway.config import load

        app = create_app(load(None, upstream={"base_url": f"{upstream}/v1"}, rails_dir=rails, policy="general"))
    uvicorn.run(app, port=port, log_level="error", lifespan="on" if upstream else "off")


def start(upstream: str | None, rails: str = "") -> tuple[Any, str]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(upstream, rails, port), daemon=True)
    process.start()
    deadline = time.monotonic() + 300
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"http://127.0.0.1:{port}"
        except OSError:
            assert time.monotonic() < deadline, "a server did not start"
            time.sleep(0.05)


async def first_token(session: Any, url: str, tokens_per_second: float) -> float:
    """Milliseconds from the request to the first event with content."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "What is an index fund?"}], "stream": True}
    began = time.perf_counter()
    async with session.post(url + PATH, json={**asked, "tokens_per_second": tokens_per_second}) as reply:
        async for line in reply.content:
            if line.startswith(b"data: {") and b'"content": "' in line and b'"content": ""' not in line:
                return (time.perf_counter() - began) * 1e3
    raise RuntimeError("a stream without content")


async def measure(urls: dict[str, str], rates: list[float], requests: int) -> list[dict[str, Any]]:
    import aiohttp

    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session:
        for rate in rates:
            times: dict[str, list[float]] = {name: [] for name in urls}
            for number in range(requests + 2):
                for name, url in urls.items():
                    taken = await first_token(session, url, rate)
                    if number >= 2:  # the first of each warm up
                        times[name].append(taken)
            medians = {name: statistics.median(taken) for name, taken in times.items()}
            for name, median in medians.items():
                ratio, more = median / medians["none"], median - medians["none"]
                row = {"tokens_per_second": rate, "window": name, "ms": median, "ratio": ratio, "added_ms": more}
                found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--tokens-per-second", type=float, nargs="+", default=[50, 200])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    running, upstream = start(None)
    processes, urls = [running], {"none": upstream}
    with tempfile.TemporaryDirectory() as folder:
        for window, overlap in WINDOWS:
            rails = Path(folder) / f"{window}-{overlap}"
            shutil.copytree(ROOT / "rails" / "general", rails / "general")
            path = rails / "general" / "policy.yml"
            rules = yaml.safe_load(path.read_text())
            rules["streaming"] = {"window_tokens": window, "overlap_characters": overlap}
            path.write_text(yaml.safe_dump(rules))
            running, urls[f"{window} chunks, overlap {overlap}"] = start(upstream, str(rails))
            processes.append(running)
        rows = asyncio.run(measure(urls, options.tokens_per_second, options.requests))
    for process in processes:
        process.terminate()
    print("| tokens per second | window | first token, ms | more than without, ms | ratio |\n|---|---|---|---|---|")
    for row in rows:
        print("| {tokens_per_second:.0f} | {window} | {ms:.0f} | {added_ms:.0f} | {ratio:.2f} |".format(**row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
