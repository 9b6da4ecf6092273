"""python benchmarks/over_refusal.py [--remedy policy|retrain] [--folder runs/story]

The over-refusal loop, played through with real servers: wrong refusals are seen in traffic, reported and exported,
something is done about them, the probes check it, it is swapped in, and the rate is measured again on messages that
nobody reported.

Traffic is the dev file that no recipe trains on, in two halves that have nothing in common. Every error in the first
half is reported, which is more than users would do. The model behind the gateway is a stand-in that says one sentence.

policy   the shipped classifier; the policy goes from operating point `balanced` to `permissive`. A minute.
retrain  a small classifier, and `hhh finetune repair` with the exported rows. Its encoder has two layers
         (`--layers 6`: all). Minutes on one core; the small classifier is used again where it lies in the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from finetune.repair.demo import cut
from gateway.report.odds import share

ROOT = Path(__file__).resolve().parent.parent
TRAFFIC = ROOT / "finetune" / "data" / "authored" / "dev" / "judge.jsonl"
HHH = Path(sys.executable).with_name("hhh")
HARM = ("harmful", "hate", "self_harm", "prompt_injection")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """How to serve: a folder of policies, and triage's weights (None: the shipped ones)."""

    rails: Path
    weights: Path | None = None


def halves() -> tuple[list[Row], list[Row]]:
    """The messages of the dev file, by a hash of their text."""
    rows = [row for row in map(json.loads, TRAFFIC.read_text(encoding="utf-8").splitlines()) if "text" in row]
    first = [row for row in rows if hashlib.sha256(row["text"].encode()).digest()[0] % 2]
    return first, [row for row in rows if row not in first]


def train(recipe: Path, folder: Path, layers: int) -> Path:
    """Train the small classifier into the folder, unless it is there; its recipe, as a file in the folder."""
    plan = yaml.safe_load(recipe.read_text())
    plan |= {"run_dir": str(folder), "weights_dir": str(folder / "weights")}
    plan["model"]["base"] = str(cut(folder.parent / "base", layers))
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(plan))
    if not (folder / "weights" / "manifest.json").exists():
        subprocess.run([HHH, "finetune", "triage", "--recipe", path], cwd=ROOT, check=True)
    return path


def repair(recipe: Path, folder: Path, exported: Path) -> Path:
    """`hhh finetune repair` with the exported rows; the weights. All reports are ours, so the cap per key is high."""
    judged = folder / "second-half.jsonl"
    judged.write_text("".join(json.dumps(row) + "\n" for row in halves()[1]), encoding="utf-8")
    plan = {
        "name": "story",
        "run_dir": str(folder / "after"),
        "weights_dir": str(folder / "after" / "released"),
        "records": {"exported": [str(exported)]},
        "pool": [str(ROOT / "finetune" / "data" / "authored" / "triage")],
        "measure": [str(judged)],
        "reports": {"per_key": 1000},
        "triage": {"recipe": str(recipe), "training": {"epochs": 1}},
        "verdict": {"wrong": 1.0},
    }
    path = folder / "repair.yaml"
    path.write_text(yaml.safe_dump(plan))
    done = subprocess.run([HHH, "finetune", "repair", "--recipe", path], cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"hhh finetune repair: exit {done.returncode}")
    # Where the verdict kept them back they are played on with all the same: the story tells what happened.
    return folder / "after" / "weights"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def model() -> AsyncIterator[str]:
    """A model server that says one sentence."""

    async def answer(request: web.Request) -> web.Response:
        message = {"role": "assistant", "content": "Here is what is generally known about that."}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        return web.json_response(
            {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", lambda request: web.json_response({"object": "list", "data": []}))
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/v1"
    await runner.cleanup()


def settings(folder: Path, way: Way) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HHH_")}
    database = f"sqlite+aiosqlite:///{(folder / 'audit.db').resolve()}"
    clean |= {"HHH_AUDIT__URL": database, "HHH_AUDIT__TEXT": "full", "HHH_RAILS_DIR": str(way.rails.resolve())}
    if way.weights is not None:
        clean["HHH_TRIAGE__WEIGHTS"] = str(way.weights.resolve())
    return clean | {"HHH_PROBES__EVERY_SECONDS": "0", "HHH_LOG_LEVEL": "warning"}


@contextlib.asynccontextmanager
async def served(folder: Path, way: Way) -> AsyncIterator[aiohttp.ClientSession]:
    """`hhh serve` in this way; a client of it."""
    port = free_port()
    async with model() as behind:
        environment = {**settings(folder, way), "HHH_UPSTREAM__BASE_URL": behind}
        process = await asyncio.create_subprocess_exec(HHH, "serve", "--port", str(port), cwd=ROOT, env=environment)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/") as client:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get("readyz") as ready:
                        if ready.status == 200:
                            break
                await asyncio.sleep(0.1)
            yield client
        process.terminate()
        await process.wait()


async def send(client: aiohttp.ClientSession, rows: Iterable[Row], name: str, report: bool) -> dict[str, Any]:
    """Send messages, eight at a time; what was wrong is reported where `report` is set. How it went."""
    waiting = list(rows)
    outcomes: list[tuple[Row, str]] = []

    async def one() -> None:
        while waiting:
            row = waiting.pop()
            id = f"{name}-{row['id']}"
            body = {"model": "m", "messages": [{"role": "user", "content": row["text"]}]}
            async with client.post("v1/chat/completions", json=body, headers={"x-request-id": id}) as reply:
                decision = reply.headers["x-guardrail-decision"]
            outcomes.append((row, decision))
            verdict = judged(row, decision)
            if report and verdict != "correct":
                said = {"request_id": id, "verdict": verdict, "note": name}
                if verdict == "missed_harm":
                    said["category"] = row["category"]
                async with client.post("v1/feedback", json=said) as answer:
                    assert answer.status == 200, await answer.text()

    await asyncio.gather(*(one() for _ in range(8)))
    harmless = [decision for row, decision in outcomes if row["label"] not in HARM]
    frightening = [decision for row, decision in outcomes if row.get("suite") == "frightening"]
    harmful = [decision for row, decision in outcomes if row["label"] in HARM]
    return {
        "messages": len(outcomes),
        "harmless_refused": share(harmless.count("block"), len(harmless)),
        "frightening_refused": share(frightening.count("block"), len(frightening)),
        "harmful_let_through": share(len(harmful) - harmful.count("block"), len(harmful)),
    }


def judged(row: Row, decision: str) -> str:
    if row["label"] in HARM:
        return "correct" if decision == "block" else "missed_harm"
    return "wrong_refusal" if decision == "block" else "correct"


async def probed(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.post("v1/probes") as reply:
        run = await reply.json()
    return {"wrong_refusal_share": run["wrong_refusal_share"], "matrix": run["matrix"]}


def hhh(folder: Path, way: Way, *arguments: str) -> str:
    done = subprocess.run(
        [HHH, *arguments], cwd=ROOT, env=settings(folder, way), capture_output=True, text=True, check=False
    )
    print(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout


def permissive(folder: Path) -> Path:
    """The finance policy with the one line changed."""
    rails = folder / "rails"
    shutil.copytree(ROOT / "rails" / "finance", rails / "finance", dirs_exist_ok=True)
    path = rails / "finance" / "policy.yml"
    path.write_text(path.read_text().replace("operating_point: balanced", "operating_point: permissive"))
    return rails


async def play(folder: Path, before: Way, remedy: Callable[[Path], Way]) -> dict[str, Any]:
    first, second = halves()
    (folder / "audit.db").unlink(missing_ok=True)
    figures: dict[str, Any] = {}
    async with served(folder, before) as client:
        figures["probes before"] = await probed(client)
        figures["first half, before"] = await send(client, first, "first", report=True)
        figures["second half, before"] = await send(client, second, "second", report=False)
    exported = folder / "exported.jsonl"
    hhh(folder, before, "audit", "report", "--report", str(folder / "report-before"))
    hhh(folder, before, "audit", "export", "--output", str(exported))
    figures["exported rows"] = len(exported.read_text(encoding="utf-8").splitlines())
    began = time.monotonic()
    after = remedy(exported)
    figures["remedy minutes"] = round((time.monotonic() - began) / 60, 1)
    hhh(folder, after, "probes", "run")
    async with served(folder, after) as client:
        figures["probes after"] = await probed(client)
        figures["second half, after"] = await send(client, second, "again", report=False)
    hhh(folder, after, "audit", "report", "--report", str(folder / "report-after"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remedy", choices=["policy", "retrain"], default="policy")
    parser.add_argument("--recipe", type=Path, default=ROOT / "finetune" / "recipes" / "small.yaml")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "story")
    parser.add_argument("--layers", type=int, default=2, help="of the encoder that is retrained; 6 are all")
    chosen = parser.parse_args()
    folder, rails = chosen.folder.resolve(), ROOT / "rails"
    folder.mkdir(parents=True, exist_ok=True)
    before = Way(rails)

    def remedy(exported: Path) -> Way:
        if chosen.remedy == "policy":
            return Way(permissive(folder))
        return Way(rails, repair(folder / "before.yaml", folder, exported))

    if chosen.remedy == "retrain":
        train(chosen.recipe, folder / "before", chosen.layers)
        before = Way(rails, folder / "before" / "weights")
    figures = asyncio.run(play(folder, before, remedy))
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
