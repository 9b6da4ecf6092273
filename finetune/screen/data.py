"""What the screen learns from: texts with what the encoder says of them, and the same dev split as triage.

Beside triage's own training rows, of which the encoder knows the answers by heart, there are texts that it never saw:
the rest of the public training sources, without their labels. Held-out sources are never among them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.cascade import fingerprint, joined
from classifiers.labels import LABELS
from classifiers.message import Message, merged
from classifiers.screen import MOST_CHARACTERS
from classifiers.text import normalise
from classifiers.triage import Triage
from finetune.triage import data as triage_data
from finetune.triage.recipe import Recipe, Screen
from finetune.triage.row import Row


@dataclass(frozen=True, slots=True)
class Example:
    """A row with what the encoder says: the likeliest risk's score, toxicity, and whether it would flag the text."""

    row: Row
    risk: float
    toxicity: float
    flagged: bool

    @property
    def harmful(self) -> bool:
        """What we say: any label but benign."""
        return self.row.label not in (None, "benign")


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Example]
    dev: list[Example]
    encoder: str
    flags: dict[str, float]
    manifest: list[dict[str, Any]]


def build(plan: Recipe, split: triage_data.Split) -> Split:
    """Both splits. The encoder's scores are kept in `run_dir`, by encoder, so that a second run need not wait.

    What a tool returned is no text for the screen; a turn is scored with those before it.
    """
    assert plan.screen is not None
    held = {_key(row) for row in split.dev}
    own = [row for row in split.train if len(row.text) <= MOST_CHARACTERS and row.kind == "user"]
    more = [row for row in _unlabelled(plan.screen) if _key(row) not in held]
    train = list({_key(row): row for row in [*more, *own]}.values())
    dev = [row for row in split.dev if row.kind == "user"]
    encoder = fingerprint(plan.weights_dir)
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    said = _scores([*train, *dev], plan.weights_dir, plan.run_dir / f"teacher-{encoder[:12]}.jsonl")
    files = [{"file": path.name, "unlabelled_rows": most} for path, most in plan.screen.more.items()]
    points = Triage.load(plan.weights_dir).operating_points.values()
    flags = {label: min(point[label]["doubt"] for point in points) for label in LABELS[1:]}
    toxicity = plan.screen.toxicity
    learnt, measured = ([_example(row, said, flags, toxicity) for row in rows] for rows in (train, dev))
    return Split(learnt, measured, encoder, flags, [*split.manifest, *files])


def shown(row: Row) -> str:
    """The text as the screen reads it."""
    return joined(normalise(row.text), row.before) if row.before else normalise(row.text)


def _unlabelled(plan: Screen) -> Iterator[Row]:
    for path, most in plan.more.items():
        rows = triage_data.read_jsonl(path)
        said = (text.strip() for row in rows for text in triage_data.user_turns(row))
        texts = sorted({text for text in said if 0 < len(text) <= MOST_CHARACTERS})
        random.Random(f"{plan.seed}:{path.name}").shuffle(texts)
        yield from (Row(text, None, None, None, f"unlabelled-{path.stem}") for text in texts[:most])


def _scores(rows: Sequence[Row], weights: Path, kept: Path) -> dict[str, dict[str, Any]]:
    """By row: the encoder's scores and toxicity; of a turn with others before it the worse of both readings."""
    known: dict[str, dict[str, Any]] = {}
    if kept.exists():
        known = {one["sha256"]: one for one in triage_data.read_jsonl(kept)}
    todo = sorted(
        {_digest(row): row for row in rows if _digest(row) not in known}.values(), key=lambda row: len(row.text)
    )
    triage = Triage.load(weights, threads=2)
    with kept.open("a", encoding="utf-8") as out:
        for start in range(0, len(todo), 32):
            batch = todo[start : start + 32]
            read = [[Message(row.text), *([row.message] if row.before else [])] for row in batch]
            judged = iter(triage.score([message for messages in read for message in messages]))
            for row, messages in zip(batch, read, strict=True):
                found = merged([next(judged) for _ in messages])
                scores = {label: round(score, 4) for label, score in found.scores.items()}
                one: dict[str, Any] = {"sha256": _digest(row), "scores": scores, "toxicity": round(found.toxicity, 4)}
                known[one["sha256"]] = one
                out.write(json.dumps(one) + "\n")
    return known


def _example(row: Row, said: dict[str, dict[str, Any]], flags: Mapping[str, float], toxicity: float) -> Example:
    one = said[_digest(row)]
    flagged = one["toxicity"] >= toxicity or any(one["scores"][label] >= at for label, at in flags.items())
    return Example(row, max(one["scores"][label] for label in flags), one["toxicity"], flagged)


def _digest(row: Row) -> str:
    return hashlib.sha256(f"{row.before}\0{row.text}".encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _key(row: Row) -> str:
    return shown(row).lower()
