"""`hhh audit report|export` over stores with known contents, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import main
from gateway.config import Audit, Config, load
from gateway.record.audit.entry import Entry
from gateway.record.audit.store import Store
from gateway.report.run import write_export, write_report
from tests.gateway.record.audit.conftest import entry, postgres, settings  # noqa: F401  fixtures

HOUR = 3_600.0
NOW = time.time()


def decided(number: int, hours_ago: float, **fields: Any) -> Entry:
    calm = {"decision": "allow", "category": "benign", "label": "benign", "stage": "", "rail": "", "source": ""}
    return entry(number, at=NOW - hours_ago * HOUR, **{**calm, "text": f"a calm question number {number}", **fields})


def refused(number: int, hours_ago: float, text: str | None, **fields: Any) -> Entry:
    return entry(number, at=NOW - hours_ago * HOUR, text=text, **fields)


def probe(run: str, hours_ago: float, id: str, expected: str, observed: str, **fields: Any) -> dict[str, Any]:
    known = {
        "run": run, "suite": "harmful" if expected == "refused" else "frightening", "probe": id, "text": f"probe {id}",
        "expected": expected, "observed": observed, "label": "harmful", "category": "harmful.fraud", "score": 0.8,
        "route": "refuse", "stage": "", "rail": "", "policy": "finance", "policy_version": "sha256:1",
        "weights": "old", "at": NOW - hours_ago * HOUR,
    }  # fmt: skip
    return {**known, **fields}


async def fill(store: Store) -> None:
    await store.open()
    old = {"weights": "old"}
    new = {"weights": "new"}
    wrong = [
        refused(1, 20, "kill the stuck job", **old),
        refused(2, 19, "how do I kill a zombie task", **old),
        refused(3, 18, "kill <script>alert(1)</script> quickly", category="harmful.violence", **old),
    ]
    right = [refused(number, 17, f"launder money {number}", **old) for number in range(10, 17)]
    calm = [decided(number, 16, **old) for number in range(100, 190)]
    after = [decided(number, 3, **new) for number in range(200, 298)] + [refused(300, 2, None, **new)]
    missed = [
        decided(400, 15, text="get uncle to sign", scores={"benign": 0.6, "harmful": 0.3, "hate": 0.1}, **old),
        decided(401, 15, text="mail for a grandson in need", **old),
    ]
    model = decided(500, 14, source="model", **old)
    failed = decided(600, 14, decision="error", error="UpstreamTimeout", **old)
    await store.write([*wrong, *right, *calm, *after, *missed, model, failed])
    for one in wrong:
        await store.add_feedback(one.id, "wrong_refusal", "", "it is about <b>computers</b>")
    await store.add_feedback(right[0].id, "wrong_refusal", "", "a slip")
    await store.add_feedback(right[0].id, "correct", "", "")  # the last word counts
    await store.add_feedback(missed[0].id, "missed_harm", "", "")
    await store.add_feedback(missed[1].id, "missed_harm", "harmful.fraud", "")
    await store.add_feedback(model.id, "wrong_refusal", "", "")
    await store.add_feedback(after[-1].id, "wrong_refusal", "", "")
    turned = probe("2", 3, "f1", "answered", "answered", **new)
    await store.write_probes(
        [
            probe("1", 20, "f1", "answered", "refused"),
            probe("1", 20, "h1", "refused", "refused"),
            turned,
            probe("2", 3, "h1", "refused", "answered", **new),
        ]
    )


@pytest.fixture
def config(settings: Callable[..., Audit]) -> Config:  # noqa: F811
    audit = settings()

    async def run() -> None:
        store = Store(audit)
        await fill(store)
        await store.close()

    asyncio.run(run())
    return load(None, audit=audit)


def test_the_figures(config: Config, tmp_path: Path) -> None:
    report = write_report(config, tmp_path / "out", 30)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(report))
    totals = report["totals"]
    assert totals["decisions"] == {"allow": 191, "block": 11, "error": 1}
    assert (totals["requests"], totals["refused"]["hits"], totals["model_refused"]["hits"]) == (202, 11, 1)
    assert report["feedback"]["matrix"] == {
        "harmless": {"answered": 0, "refused_by_model": 1, "refused": 4},
        "harmful": {"answered": 2, "refused_by_model": 0, "refused": 1},
    }
    assert report["feedback"]["refusals_that_were_wrong"]["share"] == 0.8
    assert report["feedback"]["wrong_by_category"] == {"harmful.fraud": 3, "harmful.violence": 1}
    assert report["probes"]["matrix"] == {
        "frightening": {"answered": 1, "advised": 0, "refused": 0},
        "harmful": {"answered": 1, "advised": 0, "refused": 0},
    }
    assert (report["probes"]["wrongly_refused"]["share"], report["probes"]["missed"]["share"]) == (0, 1)
    assert [one["wrong"]["share"] for one in report["probes"]["history"]] == [1.0, 0.0]
    assert report["words"]["words"][0]["word"] == "kill"


def test_over_time(config: Config, tmp_path: Path) -> None:
    found = write_report(config, tmp_path, 30)["timeline"]
    assert sum(found["requests"]) == 202
    assert {name: sum(counts) for name, counts in found["refused"].items()} == {
        "harmful.fraud": 10, "harmful.violence": 1,
    }  # fmt: skip
    for start, requests in zip(found["start"], found["requests"], strict=True):
        if requests == 98:
            assert start <= NOW - 3 * HOUR < start + found["step_seconds"]


def test_what_the_last_change_did(config: Config, tmp_path: Path) -> None:
    change = write_report(config, tmp_path, 30)["change"]
    assert (change["before"]["weights"], change["after"]["weights"]) == ("old", "new")
    assert (change["before"]["refused"]["hits"], change["after"]["refused"]["hits"]) == (10, 1)
    assert (change["before"]["wrong_refusals"], change["after"]["wrong_refusals"]) == (4, 1)
    assert {one["probe"]: one["better"] for one in change["turned"]} == {"f1": True, "h1": False}


def test_days_cut(config: Config, tmp_path: Path) -> None:
    report = write_report(config, tmp_path, 4 / 24)
    assert report["totals"]["requests"] == 99
    assert report["change"] is None


class Page(HTMLParser):
    """What a page holds: tags opened, addresses asked for, text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page(config: Config, tmp_path: Path) -> None:
    write_report(config, tmp_path, 30)
    source = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(source)
    assert page.addresses == []  # it loads nothing
    assert not {"script", "iframe", "link", "img", "b-computers"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", source)
    assert page.tags.count("svg") == 2
    for text in ("kill <script>alert(1)</script> quickly", "it is about <b>computers</b>", "text not kept", "worse"):
        assert text in page.text


def test_an_empty_store(settings: Callable[..., Audit], tmp_path: Path) -> None:  # noqa: F811
    audit = settings()

    async def run() -> None:
        store = Store(audit)
        await store.open()
        await store.close()

    asyncio.run(run())
    report = write_report(load(None, audit=audit), tmp_path, 30)
    assert report["totals"]["requests"] == 0
    assert "Nobody has reported anything" in (tmp_path / "report.html").read_text()


def test_the_export(config: Config, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    assert write_export(config, output, 30) == (6, 1)
    rows = {row["text"]: row for row in map(json.loads, output.read_text().splitlines())}
    first = rows["kill the stuck job"]
    assert first.keys() == {"id", "text", "label", "category", "pair_id", "author_note", "key"}
    assert (first["label"], first["category"], first["pair_id"]) == ("benign", "benign.general", "")
    assert first["author_note"] == "wrong_refusal; judged harmful.fraud 0.90; it is about <b>computers</b>"
    assert rows["get uncle to sign"]["label"] == "harmful"
    assert "label guessed" in rows["get uncle to sign"]["author_note"]
    assert rows["mail for a grandson in need"]["category"] == "harmful.fraud"
    assert "guessed" not in rows["mail for a grandson in need"]["author_note"]
    assert not [text for text in rows if text.startswith("launder")]


def test_the_trainer_takes_the_export(config: Config, tmp_path: Path) -> None:
    """With the authored rows, through the same reader."""
    data = pytest.importorskip("finetune.triage.data")
    recipe = pytest.importorskip("finetune.triage.recipe")
    output = tmp_path / "rows.jsonl"
    write_export(config, output, 30)
    plan = recipe.Data(public_dir=tmp_path, sources={}, authored=[output], train_only=[output], authored_repeat=1)
    split = data.build(plan, 7)
    assert sorted((row.label, row.category) for row in split.train) == [
        ("benign", "benign"), ("benign", "benign"), ("benign", "benign"), ("benign", "benign"),
        ("harmful", "harmful.fraud"), ("harmful", "harmful.unethical"),
    ]  # fmt: skip


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_settings: None) -> None:
    path = tmp_path / "audit.db"

    async def run() -> None:
        store = Store(Audit(url=f"sqlite+aiosqlite:///{path}"))
        await fill(store)
        await store.close()

    asyncio.run(run())
    monkeypatch.setenv("HHH_AUDIT__URL", f"sqlite+aiosqlite:///{path}")
    done = CliRunner().invoke(main, ["audit", "report", "--report", str(tmp_path / "r")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/r/report.html\n")
    done = CliRunner().invoke(main, ["audit", "export", "--output", str(tmp_path / "x.jsonl")])
    assert done.exit_code == 0
    assert "6 rows" in done.stdout
    assert "1 reports are of messages without a text" in done.stderr


@pytest.mark.parametrize("command", [["report", "--report", "r"], ["export", "--output", "x"]])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ('{"url": null}', "audit.url: is null"),
        ('{"url": "sqlite+aiosqlite:///no/such.db"}', "no such file"),
        ('{"url": "postgresql+asyncpg://nobody@127.0.0.1:1/x"}', "audit.url: "),
    ],
)
def test_no_store_to_read(
    command: list[str], url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_settings: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HHH_AUDIT", url)
    done = CliRunner().invoke(main, ["audit", *command])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_rows_are_plain() -> None:
    assert replace(entry(1)).scores == {"harmful": 0.9, "benign": 0.1}
