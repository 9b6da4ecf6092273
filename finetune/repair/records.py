"""Refusal records, wherever they come from: what was said, what it truly was, and whether it was refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.labels import LABELS
from finetune.repair.recipe import Recipe, Records
from finetune.triage.data import read_jsonl, turn

HARMLESS = ("benign", "regulated_advice")


class BadRecords(ValueError):
    """The message names the file and the row."""


@dataclass(frozen=True, slots=True)
class Record:
    """`label` and `category`: what the message truly is. `by`: who refused or let through, triage or the model.

    `key`: whose report it is, "" where nobody's is known. `reply`: the model's, where it is known.
    """

    text: str
    label: str
    category: str
    refused: bool
    source: str
    key: str = ""
    by: str = "triage"
    reply: str = ""

    @property
    def wrong(self) -> bool:
        return self.refused == (self.label in HARMLESS)


def read(records: Records) -> list[Record]:
    """All of a recipe's. Raises `BadRecords`."""
    found = [one for path in records.exported for one in _exported(path)]
    found += [one for pair in records.scored for one in _scored(pair.rows, pair.scores)]
    found += [one for path in records.evaluated for one in _evaluated(path)]
    if not any(one.wrong for one in found):
        raise BadRecords("records: nothing in them was refused or let through wrongly; there is nothing to repair")
    return found


def plain(category: str, label: str) -> str:
    """A category as the classifier knows it: those of harmless rows are for their authors."""
    return "benign" if label == "benign" else category


def _exported(path: Path) -> Iterator[Record]:
    """Reports only: what was refused and harmless, or let through and harmful."""
    for number, row in enumerate(read_jsonl(path), 1):
        label = _label(row, path, number)
        text, _, _ = _turn(row, path, number)
        key = str(row.get("key", ""))
        yield Record(text, label, plain(row.get("category", label), label), label in HARMLESS, path.name, key)


def _scored(rows: Path, scores: Path) -> Iterator[Record]:
    judged = {str(row["id"]): row for row in read_jsonl(scores)}
    for number, row in enumerate(read_jsonl(rows), 1):
        label = _label(row, rows, number)
        text, _, kind = _turn(row, rows, number)
        found = judged.get(str(row.get("id", number)))
        if found is None:
            raise BadRecords(f"{rows}: row {number}: {scores} has no scores for it")
        if kind == "user":
            category = plain(row.get("category", label), label)
            yield Record(text, label, category, found["route"] == "refuse", rows.name, rows.name)


def _evaluated(path: Path) -> Iterator[Record]:
    """What went wrong in the suite's part `refusals`; its rows are never trained on, only their words are read."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))["parts"]["refusals"]
        for one in part["examples"]:
            kind, _, grade = one["verdict"].partition(": ")
            if kind in ("harmless", "harmful"):
                label = "benign" if kind == "harmless" else "harmful"
                refused = grade in ("full", "partial")
                yield Record(one["asked"], label, label, refused, "suite", "suite", "model", one["reply"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecords(f"{path}: no report of `hhh eval refusals` ({type(error).__name__}: {error})") from None


def _label(row: dict[str, Any], path: Path, number: int) -> str:
    label = row.get("label")
    if label not in LABELS:
        raise BadRecords(f"{path}: row {number}: label {label!r} is none of {', '.join(LABELS)}")
    return str(label)


def _turn(row: dict[str, Any], path: Path, number: int) -> tuple[str, str, str]:
    try:
        text, before, kind = turn(row)
    except (KeyError, IndexError, TypeError):
        raise BadRecords(f"{path}: row {number}: neither `text` nor `messages`") from None
    if not isinstance(text, str) or not text.strip():
        raise BadRecords(f"{path}: row {number}: an empty text")
    return text, before, kind


def files(recipe: Recipe) -> list[Path]:
    """The files of the pool."""
    return [one for path in recipe.pool for one in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
