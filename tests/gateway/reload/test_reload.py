"""Edits of a policy that a running gateway serves: seen, tested, put in force; and on any error the old one stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.guard.rails import Guard
from tests.fakes import Recorder, eventually, samples
from tests.gateway.reload.conftest import FLOWS, POLICY, Start, ask, told, write


def reloads(client: Any) -> dict[str, float]:
    found = samples(client.get("/metrics").text)
    results = ("ok", "invalid", "self_test", "error")
    return {name: found[f'hhh_config_reloads_total{{result="{name}"}}'] for name in results}


@pytest.mark.parametrize("reload", [{}, {"watch": "poll", "poll_seconds": 0.1}], ids=["notify", "poll"])
def test_an_edit_is_used(watching: Start, rails: Path, reload: dict[str, Any]) -> None:
    client = watching(reload=reload)
    assert ask(client) == "words one"
    before = told(client)["version"]
    write(rails / "own", "two")
    eventually(lambda: ask(client) == "words two")
    assert ask(client, "STOP") == "flow two"
    after = told(client)
    assert after["version"] != before
    assert after["last_reload"]["result"] == "ok"
    assert after["last_reload"]["version"] == after["version"]
    assert reloads(client)["ok"] >= 1
    assert f'policy_version="{after["version"]}"' in client.get("/metrics").text
    assert f'policy_version="{before}"' not in client.get("/metrics").text
    assert (
        client.post("/v1/moderations", json={"input": "x"}).headers["x-guardrail-policy"] == f"own@{after['version']}"
    )


def test_what_triage_remembers_meets_the_new_policy(watching: Start, rails: Path, upstream: Recorder) -> None:
    client = watching()
    assert ask(client) == ask(client) == "words one"  # remembered
    write(rails / "own", "two", "routes: {harmful: {refuse: 0.94}}")
    eventually(lambda: ask(client) == "words two")
    text = (rails / "own" / "policy.yml").read_text().replace("0.94", "0.96").replace("decision: refuse, cat", "cat", 1)
    (rails / "own" / "policy.yml").write_text(text)
    eventually(lambda: ask(client) == upstream.reply["choices"][0]["message"]["content"])


def half_written(own: Path) -> None:
    """An editor that empties the file, and takes its time to write it."""
    (own / "policy.yml").write_text("")


def cut_off(own: Path) -> None:
    """The first half of the file is a valid policy, and a laxer one."""
    (own / "policy.yml").write_text(POLICY.format("two", "").split("expect:")[0])


def no_yaml(own: Path) -> None:
    (own / "policy.yml").write_text("refusals: {")


def an_unknown_key(own: Path) -> None:
    (own / "policy.yml").write_text(POLICY.format("two", "routs: {}"))


def flows_that_do_not_parse(own: Path) -> None:
    (own / "flows.co").write_text(FLOWS % "two" + "\ndefine flow\n  if (\n")


def a_flow_that_is_gone(own: Path) -> None:
    (own / "flows.co").unlink()


def an_example_that_does_not_hold(own: Path) -> None:
    text = POLICY.format("two", "").replace("decision: allow", "decision: refuse")
    (own / "policy.yml").write_text(text)


def no_folder(own: Path) -> None:
    shutil.rmtree(own)


def not_a_file(own: Path) -> None:
    (own / "config.yml").unlink()
    (own / "config.yml").symlink_to("config.yml")


def not_readable(own: Path) -> None:
    """As root all is readable but what is no text."""
    (own / "policy.yml").write_text(POLICY.format("two", ""))
    (own / "policy.yml").chmod(0)
    if os.geteuid() == 0:
        (own / "policy.yml").write_bytes(b"\xff\xfe\xff")


@pytest.mark.parametrize(
    ("damage", "result", "reason"),
    [
        (half_written, "invalid", "policy.yml: is empty; half written?"),
        (cut_off, "invalid", "policy.yml: expect - is gone, and the policy in force has 5 examples"),
        (no_yaml, "invalid", "policy.yml: "),
        (an_unknown_key, "invalid", "policy.yml: routs - "),
        (flows_that_do_not_parse, "invalid", "flows.co: "),
        (a_flow_that_is_gone, "invalid", "config.yml: "),
        (an_example_that_does_not_hold, "self_test", "expect.0 - expected refuse, got allow (benign 0.99): 'Hello'"),
        (no_folder, "invalid", "config.yml: no such file"),
        (not_a_file, "invalid", "config.yml: no such file"),
        (not_readable, "invalid", "policy.yml: "),
    ],
)
def test_on_an_error_the_old_one_stays(
    watching: Start, rails: Path, damage: Callable[[Path], None], result: str, reason: str, capfd: Any
) -> None:
    client = watching()
    before = told(client)["version"]
    damage(rails / "own")
    last = eventually(lambda: told(client).get("last_reload"))
    assert (last["result"], told(client)["version"]) == (result, before)
    assert reason in last["reason"]
    assert str(rails / "own") in last["reason"]
    assert ask(client) == "words one"
    assert ask(client, "STOP") == "flow one"
    assert reloads(client)[result] == 1
    assert samples(client.get("/metrics").text)["hhh_config_current"] == 0
    assert client.get("/readyz").status_code == 200
    if (rails / "own" / "config.yml").is_symlink():
        (rails / "own" / "config.yml").unlink()
    write(rails / "own", "three")
    eventually(lambda: ask(client) == "words three")
    assert samples(client.get("/metrics").text)["hhh_config_current"] == 1


def test_an_empty_list_of_examples_is_meant(watching: Start, rails: Path) -> None:
    client = watching()
    (rails / "own" / "policy.yml").write_text(POLICY.format("two", "").split("expect:")[0] + "expect: []\n")
    eventually(lambda: ask(client) == "words two")


class ConfigMap:
    """A policy's folder as the kubelet mounts it: files are links through `..data`, which is swapped by a rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        shutil.rmtree(folder)
        folder.mkdir()

    def update(self, mark: str) -> None:
        self._number += 1
        old = self.folder / f"..2026_{self._number - 1}"
        new = self.folder / f"..2026_{self._number}"
        write(new, mark)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in ("config.yml", "flows.co", "policy.yml"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if old.is_dir():
            shutil.rmtree(old)


@pytest.mark.parametrize("place", ["folder", "parent"])
def test_a_configmap(watching: Start, rails: Path, place: str) -> None:
    """One per policy, or one for all, as the Helm chart mounts it: the folder of a policy is a link into it."""
    if place == "folder":
        mount = ConfigMap(rails / "own")
        mount.update("one")
        client = watching()
        mount.update("two")
    else:
        (rails / "..1").mkdir()
        (rails / "own").rename(rails / "..1" / "own")
        (rails / "..data").symlink_to("..1")
        (rails / "own").symlink_to("..data/own")
        client = watching()
        write(rails / "..2" / "own", "two")
        (rails / "..data_tmp").symlink_to("..2")
        (rails / "..data_tmp").rename(rails / "..data")
        shutil.rmtree(rails / "..1")
    eventually(lambda: ask(client) == "words two")


def test_requests_under_way_keep_what_they_began_with(
    watching: Start, rails: Path, upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = Guard.close

    async def noted(self: Guard) -> None:
        closed.append(self.policy.version)
        await close(self)

    monkeypatch.setattr(Guard, "close", noted)
    client = watching()
    before = told(client)["version"]
    upstream.chunk_seconds = 0.7
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        write(rails / "own", "two")
        eventually(lambda: ask(client) == "words two")
        assert before not in closed
        assert reply.headers["x-guardrail-policy"] == f"own@{before}"
        assert reply.read().endswith(b"data: [DONE]\n\n")
    eventually(lambda: closed == [before])


CLIENTS, VERSIONS = 64, 4


def test_under_load_no_request_fails_and_none_sees_half_a_policy(
    watching: Start, rails: Path, upstream: Recorder
) -> None:
    """Words in policy.yml and in flows.co change together; each reply must have those of the version that it names."""
    upstream.delay_seconds = 0.05  # so that requests are under way at every swap
    mount = ConfigMap(rails / "own")
    mount.update("0")
    client = watching(upstream={"timeout": {"connect_seconds": 60}})  # a busy machine is no failure
    url, done = str(client.base_url), threading.Event()
    seen: Counter[tuple[str, str]] = Counter()
    failed: list[str] = []

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        while not done.is_set():
            text = ("MARK-HARM", "STOP", "Hello")[number % 3]
            number += 1
            stream = number % 2 == 0
            body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
            async with session.post("/v1/chat/completions", json=body) as reply:
                said = await reply.text()
                version = reply.headers["x-guardrail-policy"]
            if reply.status != 200 or (stream and not said.endswith("data: [DONE]\n\n")):
                failed.append(said)
            if text == "Hello":
                seen[version, "Hello"] += "follows an index" in said
                continue
            word = "words" if text == "MARK-HARM" else "flow"
            marks = [str(mark) for mark in range(VERSIONS) if f"{word} {mark}" in said]
            seen[version, marks[0] if len(marks) == 1 else said] += 1

    async def load() -> None:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:
            await asyncio.gather(*(one(session, number) for number in range(CLIENTS)))

    thread = threading.Thread(target=lambda: asyncio.run(load()))
    thread.start()
    try:
        for mark in range(1, VERSIONS):
            before = told(client)["version"]
            mount.update(str(mark))
            eventually(lambda before=before: told(client)["version"] != before)
            time.sleep(0.2)
    finally:
        done.set()
        thread.join(30)
    assert failed == []
    assert reloads(client) == {"ok": VERSIONS - 1, "invalid": 0, "self_test": 0, "error": 0}
    marks: dict[str, set[str]] = {}
    for version, mark in seen:
        if mark != "Hello":
            marks.setdefault(version, set()).add(mark)
    assert sorted(next(iter(found)) for found in marks.values() if len(found) == 1) == [*map(str, range(VERSIONS))]
    assert len(marks) == VERSIONS
    assert sum(seen.values()) > 300
