"""What the screen learns from: texts with what the encoder says of them, and the same dev split as triage.

Beside triage's own training rows, of which the encoder knows the answers by heart, there are texts that it never saw:
the rest of the public training sources, without their labels. Held-out sources are never among them.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from classifiers.cascade import fingerprint
from classifiers.text import normalise
from classifiers.triage import Triage
from finetune.triage import data as triage_data
from finetune.triage import recipe as triage_recipe
from finetune.triage.row import Row

_FIRST_TURN = re.compile(r"Human: (.*?)(?=\n\nAssistant:|$)", re.DOTALL)
_LONGEST = 700


class Recipe(BaseModel):
    """`finetune/recipes/screen.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    triage: Path = Field(description="The recipe of the encoder: its data, its split, its weights as the teacher.")
    weights_dir: Path
    run_dir: Path
    more: dict[Path, int] = Field(default={}, description="Texts without labels, and at most how many of each file.")
    flags: dict[str, float] = Field(description="Per label: the least score that takes a text off the fast lane.")
    toxicity: float = Field(0.5, description="The same for toxicity.")
    missed_share: float = Field(0.002, gt=0, lt=1, description="Most of dev's flagged texts that may be missed.")
    unknown_share: float = Field(0.1, ge=0, le=1, description="Texts with more unknown word pieces go on.")
    seed: int = 5
    size: int = Field(64, ge=1, description="Of an embedding.")
    filters: int = Field(128, ge=1)
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    flagged_weight: float = Field(3.0, gt=0, description="What a flagged text counts in the loss.")
    base: Path | None = Field(None, description="Folder whose word embeddings are the start; null: MiniLM's.")


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
    manifest: list[dict[str, Any]]


def read(path: Path) -> Recipe:
    """Raises `pydantic.ValidationError` with the key that is wrong."""
    return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def build(plan: Recipe) -> Split:
    """Both splits. The encoder's scores are kept in `run_dir`, by encoder, so that a second run need not wait."""
    teacher = triage_recipe.read(plan.triage)
    split = triage_data.build(teacher.data, teacher.training.seed)
    held = {_key(row.text) for row in split.dev}
    own = [row for row in split.train if len(row.text) <= _LONGEST]
    more = [row for row in _unlabelled(plan) if _key(row.text) not in held]
    train = list({_key(row.text): row for row in [*more, *own]}.values())
    encoder = fingerprint(teacher.weights_dir)
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    said = _scores([*train, *split.dev], teacher.weights_dir, plan.run_dir / f"teacher-{encoder[:12]}.jsonl")
    manifest = [*split.manifest, *({"file": path.name, "unlabelled_rows": most} for path, most in plan.more.items())]
    train_examples, dev_examples = ([_example(row, said, plan) for row in rows] for rows in (train, split.dev))
    return Split(train_examples, dev_examples, encoder, manifest)


def _unlabelled(plan: Recipe) -> Iterator[Row]:
    for path, most in plan.more.items():
        texts = sorted({text for row in triage_data.read_jsonl(path) if (text := _text(row)) and len(text) <= _LONGEST})
        random.Random(f"{plan.seed}:{path.name}").shuffle(texts)
        yield from (Row(text, None, None, None, f"unlabelled-{path.stem}") for text in texts[:most])


def _text(row: dict[str, Any]) -> str | None:
    """A message: `text`, or the first turn of a conversation that was written for preference training."""
    if "text" in row:
        return str(row["text"])
    first = _FIRST_TURN.search(row["chosen"])
    return first and first[1].strip()


def _scores(rows: Sequence[Row], weights: Path, kept: Path) -> dict[str, dict[str, Any]]:
    """By text: the encoder's scores and toxicity."""
    known: dict[str, dict[str, Any]] = {}
    if kept.exists():
        known = {one["sha256"]: one for one in triage_data.read_jsonl(kept)}
    todo = sorted({row.text for row in rows if _digest(row.text) not in known}, key=len)
    triage = Triage.load(weights, threads=1)
    with kept.open("a", encoding="utf-8") as out:
        for start in range(0, len(todo), 32):
            batch = todo[start : start + 32]
            for text, judged in zip(batch, triage.score(batch), strict=True):
                scores = {label: round(score, 4) for label, score in judged.scores.items()}
                one: dict[str, Any] = {"sha256": _digest(text), "scores": scores, "toxicity": round(judged.toxicity, 4)}
                known[one["sha256"]] = one
                out.write(json.dumps(one) + "\n")
    return known


def _example(row: Row, said: dict[str, dict[str, Any]], plan: Recipe) -> Example:
    one = said[_digest(row.text)]
    flagged = one["toxicity"] >= plan.toxicity or any(one["scores"][label] >= at for label, at in plan.flags.items())
    return Example(row, max(one["scores"][label] for label in plan.flags), one["toxicity"], flagged)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _key(text: str) -> str:
    return normalise(text).lower()
