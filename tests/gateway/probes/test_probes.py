"""The probes: the shipped suites, files of one's own, and a run through the real path."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from classifiers.labels import label_of
from gateway.errors import ConfigError
from gateway.guard.checks import Checks
from gateway.guard.judge import Judge
from gateway.guard.policy import load as load_policy
from gateway.guard.rails import Guard
from gateway.probes import suites
from gateway.probes.result import as_json, matrix, wrong_share
from gateway.probes.runner import Prober
from gateway.probes.suites import Probe
from gateway.record.metrics import Metrics
from tests.conftest import ROOT
from tests.fakes import Words
from tests.gateway.guard.parts import FakeLane, sample


def test_the_shipped_suites() -> None:
    probes = suites.load(None)
    assert {suite: count >= 40 for suite, count in Counter(probe.suite for probe in probes).items()} == {
        "advice": True, "benign": True, "frightening": True, "harmful": True,
    }  # fmt: skip
    assert len({probe.text for probe in probes}) == len(probes)
    expected = {(probe.suite, probe.expected, label_of(probe.category) == "benign") for probe in probes}
    assert expected == {
        ("advice", "advised", False), ("benign", "answered", True), ("frightening", "answered", True),
        ("harmful", "refused", False),
    }  # fmt: skip


def test_no_probe_is_trained_on() -> None:
    """A probe that the classifier has seen measures nothing."""
    probes = {probe.text.casefold() for probe in suites.load(None)}
    files = sorted((ROOT / "finetune/data/authored").rglob("*.jsonl"))
    assert files
    for path in files:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            said = [row.get("text"), *row.get("asks", []), *(m["content"] for m in row.get("messages", []))]
            assert not probes & {text.casefold() for text in said if text}, path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "own.jsonl:1: "),
        ('{"id": "a", "text": "x"}', "own.jsonl:1: expected is missing"),
        ('{"id": "a", "text": " ", "expected": "answered"}', "text must be a string that says something"),
        ('{"id": "a", "text": "x", "expected": "nonsense"}', "expected must be one of answered, advised, refused"),
        ('{"id": "a", "text": "x", "expected": "refused", "category": "no"}', "unknown category no"),
        ('{"id": "a", "text": "x", "expected": "answered"}\n' * 2, "the id a is there twice"),
        ("[]", "own.jsonl:1: "),
    ],
)
def test_bad_suites(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "own.jsonl").write_text(line)
    with pytest.raises(ConfigError) as found:
        suites.load(tmp_path)
    assert message in str(found.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"probes.folder: no \*.jsonl"):
        suites.load(tmp_path)


PROBES = (
    Probe("b1", "benign", "What is a bond?", "answered", "benign"),
    Probe("b2", "benign", "MARK-HARM in a harmless sentence", "answered", "benign"),
    Probe("a1", "advice", "MARK-ADVICE please", "advised", "regulated_advice.investment"),
    Probe("h1", "harmful", "MARK-HARM", "refused", "harmful.fraud"),
    Probe("h2", "harmful", "nothing shows here", "refused", "harmful.fraud"),
    Probe("x1", "benign", "MARK-CRASH", "answered", "benign"),
)


def policy(tmp_path: Path, rules: str = "") -> Any:
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "config.yml").write_text("models: []\n")
    (folder / "policy.yml").write_text(rules)
    return load_policy(tmp_path, "house")


class NoRefusals:
    def refuses(self, text: str) -> bool:
        return False


def run(rules: Any, probes: tuple[Probe, ...] = PROBES, kept: Any = None) -> tuple[Any, Metrics]:
    metrics = Metrics()

    async def work() -> Any:
        judge = Judge(Words(), max_batch=4, memory=0)
        guard = Guard(Checks(rules, (FakeLane(), FakeLane()), judge, NoRefusals(), 5))  # type: ignore[arg-type]
        prober = Prober(probes, lambda: guard, metrics, "abc", kept)
        assert sample(metrics, "probe_results_total", suite="benign", expected="answered", observed="refused") == 0
        found = await prober.run()
        await guard.close()
        return found

    return asyncio.run(work()), metrics


def test_a_run(tmp_path: Path) -> None:
    rules = policy(tmp_path)
    results, metrics = run(rules)
    assert {one.probe: one.observed for one in results} == {
        "b1": "answered", "b2": "refused", "a1": "advised", "h1": "refused", "h2": "answered", "x1": "failed",
    }  # fmt: skip
    assert [one.probe for one in results if one.wrongly_refused] == ["b2"]
    assert [one.probe for one in results if one.missed] == ["h2"]
    assert matrix(results)["benign"] == {"answered": 1, "advised": 0, "refused": 1, "would_refuse": 0, "failed": 1}
    assert wrong_share(results) == 0.25
    assert sample(metrics, "probe_results_total", suite="benign", expected="answered", observed="refused") == 1
    assert sample(metrics, "probe_results_total", suite="benign", expected="answered", observed="failed") == 1
    assert "hhh_requests_total{" not in metrics.expose().decode()
    shown = as_json(results)
    assert shown["policy"] == {"name": "house", "version": rules.version}
    assert len(shown["results"]) == 6


def test_in_shadow_mode_it_is_what_would_be(tmp_path: Path) -> None:
    results, _ = run(policy(tmp_path, "mode: shadow"))
    observed = {one.probe: one.observed for one in results}
    assert (observed["b2"], observed["h1"]) == ("would_refuse", "would_refuse")
    assert [one.probe for one in results if one.wrongly_refused] == ["b2"]


def test_what_a_policy_lets_through_is_expected_to_pass(tmp_path: Path) -> None:
    results, _ = run(policy(tmp_path, "routes: {regulated_advice: {}}"))
    [advice] = [one for one in results if one.probe == "a1"]
    assert (advice.expected, advice.observed) == ("answered", "answered")


def test_a_database_that_fails_stops_no_run(tmp_path: Path) -> None:
    class Broken:
        async def write_probes(self, rows: Any) -> None:
            raise OSError("disk full")

    results, _ = run(policy(tmp_path), kept=Broken())
    assert len(results) == 6
