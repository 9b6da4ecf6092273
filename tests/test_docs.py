"""Docs cannot rot: what is generated is current, and what dashboards query exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway import reference
from gateway.config import Config, load
from gateway.record.metrics import TABLE

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", sorted(reference.FILES))
def test_generated_files_are_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == reference.FILES[name](), "run: python -m gateway.reference"


def test_reference_config_is_the_defaults() -> None:
    assert load(ROOT / "config.yaml").model_dump() == Config().model_dump()


def test_every_setting_and_key_says_what_it_is() -> None:
    assert "| None |" not in reference.configuration()


def test_dashboards_query_metrics_that_exist() -> None:
    known = {f"hhh_{row.name}" for row in TABLE}
    known |= {f"hhh_{row.name}_{part}" for row in TABLE for part in ("bucket", "sum", "count")}
    queries = 0
    for path in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"):
        names = set(re.findall(r"\bhhh_\w+", path.read_text(encoding="utf-8")))
        assert names <= known, names - known
        queries += len(names)
    for path in (ROOT / "deploy" / "grafana").rglob("*.json"):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                names = set(re.findall(r"\bhhh_\w+", target["expr"]))
                assert names, target
                assert names <= known, names - known
                queries += 1
    assert queries


def test_readme_and_docs_link_to_files_that_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
