"""A gateway with keys and records, its console open in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from gateway.app import create_app
from gateway.config import load
from gateway.keys import command
from tests.conftest import ROOT, Running
from tests.console.browser import CHROMIUM, DRIVER, Browser
from tests.fakes import Recorder, Words

if CHROMIUM is None or DRIVER is None:
    collect_ignore = ["test_console.py"]


@dataclass
class Console:
    """The gateway behind it, an admin's client, and the keys. `rails`: the folder of its policies."""

    running: Running
    client: httpx.Client
    admin: str
    user: str
    rails: Path

    @property
    def url(self) -> str:
        return self.running.url

    def ask(self, text: str, **headers: str) -> httpx.Response:
        """A chat as a user would have it."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        given = {
            "authorization": f"Bearer {self.user}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.client.post("/v1/chat/completions", json=body, headers=given)

    def decisions(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/v1/decisions", params=query).json()["data"]
        return found


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    rails = folder / "rails"
    shutil.copytree(ROOT / "rails" / "finance", rails / "finance")
    path = rails / "finance" / "policy.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "expect": []}))
    shutil.copytree(rails / "finance", rails / "second")
    keys = folder / "keys.json"
    _, admin = command.create(keys, "operator", role="admin")
    _, user = command.create(keys, "app")
    command.create(keys, "other", policy="second")
    upstream = Recorder()
    behind = Running(upstream)
    config = load(
        None,
        rails_dir=rails,
        keys_file=keys,
        upstream={"base_url": f"{behind.url}/v1", "retries": 0},
        audit={"url": f"sqlite+aiosqlite:///{folder}/audit.db", "text": "full", "batch_seconds": 0.05},
        probes={"every_seconds": 0, "folder": _probes(folder)},
        reload={"watch": "poll", "poll_seconds": 0.2},
    )
    running = Running(create_app(config, classifier=Words()))
    with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {admin}"
        yield Console(running, client, admin, user, rails)
    running.stop()
    behind.stop()


def _probes(folder: Path) -> Path:
    """Three probes, of which one is refused wrongly."""
    where = folder / "probes"
    where.mkdir()
    (where / "small.jsonl").write_text(
        '{"id": "s1", "text": "What is a bond?", "expected": "answered"}\n'
        '{"id": "s2", "text": "Harmless <b>MARK-HARM</b>", "expected": "answered"}\n'
        '{"id": "s3", "text": "MARK-HARM", "expected": "refused", "category": "harmful.fraud"}\n'
    )
    return where


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(_browser: Browser, console: Console) -> Iterator[Browser]:
    """The console, unlocked. Whatever the test does, nothing is complained of, and no other host is asked."""
    _browser.open(console.url)
    _browser.restart()
    _browser.see("#key-input").send_keys(console.admin)
    _browser.see("#key-form button").click()
    _browser.see("#try-text")
    yield _browser
    assert _browser.trouble() == []
    assert _browser.hosts() == {f"127.0.0.1:{console.running.port}"}
