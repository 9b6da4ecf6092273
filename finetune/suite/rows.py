"""The authored rows of the suite, checked as they are read, and a seeded share of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetune.suite.held_out import PREFIX, PROMPTS, QUESTIONS

T = TypeVar("T")


class BadRows(ValueError):
    """A file of the suite is wrong. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt. `more` holds what only some files have: `words` and `axis` of swaps."""

    id: str
    text: str
    category: str
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """`facts`: each a tuple of spellings of which one must appear; `taught`: whether the shipped dialogues treat it."""

    id: str
    text: str
    topic: str
    taught: bool
    facts: tuple[tuple[str, ...], ...]


def prompts(name: str, folder: Path = PROMPTS) -> list[Row]:
    """The rows of harmful, harmless, advice, provoking, honesty or swaps. Raises `BadRows`."""
    found = []
    for row, where in _read(folder / f"{name}.jsonl"):
        category = row.get("category") or row.get("kind") or row.get("axis")
        if not isinstance(category, str):
            raise BadRows(f"{where}: no category, kind or axis")
        found.append(Row(row["id"], row["text"], category, row))
    return found


def questions(folder: Path = QUESTIONS) -> list[Question]:
    """The finance questions with their key facts. Raises `BadRows`."""
    found = []
    for row, where in _read(folder / "finance.jsonl", "question"):
        facts = row.get("facts")
        fine = isinstance(facts, list) and all(isinstance(one, list) and one for one in facts)
        if not isinstance(facts, list) or not facts or not fine or not isinstance(row.get("taught"), bool):
            raise BadRows(f"{where}: `facts` must be lists of spellings, and `taught` true or false")
        spelled = tuple(tuple(map(str, one)) for one in facts)
        found.append(Question(row["id"], row["question"], str(row.get("topic")), row["taught"], spelled))
    return found


def sample(rows: Sequence[T], most: int | None, seed: int, name: str) -> list[T]:
    """At most `most` of the rows (None: all), the same for the same seed, in their order."""
    if most is None or len(rows) <= most:
        return list(rows)
    chosen = sorted(random.Random(f"{seed}:{name}").sample(range(len(rows)), most))
    return [rows[at] for at in chosen]


def digests() -> dict[str, str]:
    """sha256 of every file of the suite, by its name: a report says which rows it was made with."""
    files = sorted([*PROMPTS.glob("*.jsonl"), *QUESTIONS.glob("*.jsonl")])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _read(path: Path, text: str = "text") -> list[tuple[dict[str, Any], str]]:
    found: list[tuple[dict[str, Any], str]] = []
    seen: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRows(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
            identity, said = row["id"], row[text]
        except (ValueError, KeyError, TypeError) as error:
            raise BadRows(f"{where}: {type(error).__name__}: {error}") from None
        if not isinstance(identity, str) or not identity.startswith(PREFIX) or identity in seen:
            raise BadRows(f"{where}: the id {identity!r} is a duplicate or does not begin with {PREFIX!r}")
        if not isinstance(said, str) or not said.strip():
            raise BadRows(f"{where}: `{text}` is empty")
        seen.add(identity)
        found.append((row, where))
    return found
