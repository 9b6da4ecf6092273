"""A report in its folder: report.json, report.html, pictures. Parts measured later join the ones that are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.suite import page, part, pictures, rows
from finetune.suite.figures import Figure
from finetune.suite.part import Part

FORMAT = 1
ORDER = ("refusals", "toxicity", "bias", "task", "honesty", "redteam")
FILE = "report.json"


class NoReport(ValueError):
    """There is no report where one was named. The message says where."""


def write(folder: Path, about: dict[str, Any], fingerprint: str, parts: Sequence[Part]) -> dict[str, Any]:
    """Parts of an earlier report of the same subject, settings and rows are kept. Returns what report.json holds."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "about": about, "fingerprint": fingerprint, "rows": rows.digests()}
    kept = {one.name: one for one in parts}
    before = folder / FILE
    if before.is_file():
        old = json.loads(before.read_text(encoding="utf-8"))
        if {name: old.get(name) for name in head} == head:
            kept = {name: part.read(one) for name, one in old["parts"].items()} | kept
    ordered = [kept[name] for name in ORDER if name in kept]
    value = {
        **head,
        "figures": {figure.key: _figure(figure) for one in ordered for figure in one.figures},
        "parts": {one.name: one.json() for one in ordered},
    }
    before.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    drawn = pictures.draw(ordered, folder)
    (folder / "report.html").write_text(page.html(about, ordered, drawn), encoding="utf-8")
    return value


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "rows": figure.rows,
        "better": figure.meaning.better,
        "target": figure.meaning.target,
        "met": figure.met(),
    }


def read(place: Path) -> tuple[dict[str, Any], dict[str, Figure]]:
    """What a report says of its subject, and its figures by key. `place`: its folder or its JSON file."""
    file = place / FILE if place.is_dir() else place
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        found = {
            key: Figure(key, one["value"], one["low"], one["high"], one["rows"])
            for key, one in value["figures"].items()
        }
        about: dict[str, Any] = value["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoReport(f"{file}: no report of hhh eval ({type(error).__name__}: {error})") from None
    return about, found
