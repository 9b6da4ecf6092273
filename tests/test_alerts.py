"""The alert rules, by Prometheus' own tool: they are valid, and they fire when they should."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted(path for path in RULES.glob("*.yml") if not path.stem.endswith("_test")), ids=lambda path: path.name
)
def test_rules_are_valid(promtool: str, path: Path) -> None:
    run(promtool, "check", "rules", path)


@pytest.mark.parametrize("path", sorted(RULES.glob("*_test.yml")), ids=lambda path: path.name)
def test_rules_fire_when_they_should(promtool: str, path: Path) -> None:
    run(promtool, "test", "rules", path)


def test_prometheus_reads_its_configuration(promtool: str) -> None:
    run(promtool, "check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml")


def test_queries_of_dashboards_are_valid(promtool: str, tmp_path: Path) -> None:
    """Each as a rule of its own, for the tool reads no dashboards."""
    rules = []
    for path in sorted((ROOT / "deploy" / "grafana").rglob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            rules += [
                {"record": f"q:{len(rules) + at}", "expr": one["expr"]} for at, one in enumerate(panel["targets"])
            ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    run(promtool, "check", "rules", file)
