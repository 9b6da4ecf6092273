"""One gateway for all tests of the HTTP surface that need no settings of their own, and policies made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from gateway.app import create_app
from gateway.config import load
from tests.conftest import ROOT, Running
from tests.fakes import Recorder, Words, samples

HELLO = {"model": "m", "messages": [{"role": "user", "content": "What is an index fund?"}]}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A request that says one thing."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Front:
    """A gateway with the finance policy, and the model server behind it."""

    client: httpx.Client
    upstream: Recorder

    @property
    def port(self) -> int:
        return int(self.client.base_url.port or 0)

    def ask(self, body: Any, **headers: str) -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/v1/chat/completions", **content, headers=named)

    def metrics(self) -> dict[str, float]:
        return samples(self.client.get("/metrics").text)


@pytest.fixture(scope="session")
def _front() -> Iterator[Front]:
    recorder = Recorder()
    behind = Running(recorder)
    recorder.url = f"{behind.url}/v1"
    upstream = {"base_url": recorder.url, "retries": 0, "breaker": {"failures": 1_000_000}}
    limits = {"messages": 50, "characters": 20_000}
    config = load(None, rails_dir=ROOT / "rails", upstream=upstream, limits=limits)
    running = Running(create_app(config, classifier=Words()))
    with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        yield Front(client, recorder)
    running.stop()
    behind.stop()


@pytest.fixture
def front(_front: Front) -> Front:
    """The shared gateway, its model server as new."""
    _front.upstream.reset()
    return _front


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of policies with one, `house`, of these rules and no NeMo flow. Returns the folder."""

    def make(**rules: Any) -> Path:
        folder = tmp_path / "rails" / "house"
        folder.mkdir(parents=True)
        (folder / "config.yml").write_text("models: []\n")
        (folder / "policy.yml").write_text(yaml.safe_dump(rules))
        return folder.parent

    return make
