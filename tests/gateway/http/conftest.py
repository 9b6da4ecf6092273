"""One gateway for all tests of the HTTP surface that need no settings of their own, and policies made on the spot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from gateway.app import create_app
from gateway.config import load
from tests.conftest import QUIET, ROOT, Running
from tests.fakes import Recorder, Wire, Words, samples

HELLO = {"model": "m", "messages": [{"role": "user", "content": "What is an index fund?"}]}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A request that says one thing."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def check_error(response: httpx.Response, status: int, code: str | None, upstream: Recorder | Wire | None) -> str:
    """An error in OpenAI's shape, all four keys, that gives nothing away. Returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] == code, response.text
    check_private(response, upstream)
    return str(error["message"])


def check_private(response: httpx.Response, upstream: Recorder | Wire | None) -> None:
    """No trace of what is inside, and no address of what is behind."""
    said = response.text + str(response.headers)
    for word in ("Traceback", 'File "', "aiohttp", "site-packages", "Errno", "127.0.0.1", "localhost"):
        assert word not in said
    if upstream is not None:
        assert upstream.url.split(":")[2].split("/")[0] not in response.text


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
def rails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finance policy, its replies checked for toxicity whatever the route."""
    folder = tmp_path_factory.mktemp("shared") / "rails"
    shutil.copytree(ROOT / "rails" / "finance", folder / "finance")
    path = folder / "finance" / "policy.yml"
    rules = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**rules, "toxicity": {"input": 0.97, "output": 0.85}}))
    return folder


@contextmanager
def started(rails: Path, url: str, retries: int) -> Iterator[httpx.Client]:
    """A gateway with the finance policy in front of a model server that may fail as often as it likes."""
    upstream = {"base_url": url, "retries": retries, "breaker": {"failures": 1_000_000}}
    config = load(None, rails_dir=rails, upstream=upstream, limits={"messages": 50, "characters": 20_000}, **QUIET)
    running = Running(create_app(config, classifier=Words()))
    with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
        yield client
    running.stop()


@pytest.fixture(scope="session")
def _front(rails: Path) -> Iterator[Front]:
    recorder = Recorder()
    behind = Running(recorder)
    recorder.url = f"{behind.url}/v1"
    with started(rails, recorder.url, retries=0) as client:
        yield Front(client, recorder)
    behind.stop()


@pytest.fixture
def front(_front: Front) -> Front:
    """The shared gateway, its model server as new."""
    _front.upstream.reset()
    return _front


@pytest.fixture(scope="session")
def _wired(rails: Path) -> Iterator[tuple[httpx.Client, Wire]]:
    wire = Wire()
    with started(rails, wire.url, retries=1) as client:
        yield client, wire
    wire.stop()


@pytest.fixture
def say(_wired: tuple[httpx.Client, Wire]) -> Callable[..., tuple[httpx.Client, Wire]]:
    """A gateway that retries once, in front of a server that says these bytes, one reply after the other."""

    def start(*replies: bytes | None) -> tuple[httpx.Client, Wire]:
        client, wire = _wired
        wire.say(*replies)
        return client, wire

    return start


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
