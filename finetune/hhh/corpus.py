"""The texts of a run and where each came from: authored dialogues, and helper texts for pre-training.

Reads files and splits them. It does not tokenize, and it copies nothing of the shared set into the repository.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.align import provoking, rows
from finetune.align.provoking import Exchange
from finetune.align.rows import digest
from finetune.hhh.recipe import Data
from finetune.triage.data import read_jsonl

LICENCES = {
    "authored": "Apache-2.0 (written for this repository)",
    "banking77": "CC-BY-4.0",
    "clinc150": "CC-BY-3.0",
    "hwu64": "CC-BY-4.0",
    "gsm8k": "MIT",
    "tatqa-questions": "CC-BY-4.0",
    "self-instruct-seeds": "Apache-2.0",
    "mtbench-vicuna": "Apache-2.0",
}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One way through an authored row: alternating user and assistant texts, the user's first."""

    row: str
    control: str
    category: str
    turns: tuple[str, ...]
    ask: int = 0

    @property
    def question(self) -> str:
        return self.turns[0]

    @property
    def answer(self) -> str:
        return self.turns[-1]


@dataclass(frozen=True, slots=True)
class Source:
    """One file that went in."""

    name: str
    rows: int
    sha256: str
    licence: str


@dataclass(slots=True)
class Corpus:
    """`dev_rows` holds rows that are not in `train` at all; `dev_asks` phrasings that are not, of answers that are."""

    train: list[Dialogue] = field(default_factory=list)
    dev_rows: list[Dialogue] = field(default_factory=list)
    dev_asks: list[Dialogue] = field(default_factory=list)
    helpers: list[str] = field(default_factory=list)
    toxic: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    guidance: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def texts(self) -> Iterable[str]:
        """What the tokenizer learns from; the authored turns count more than the helpers."""
        for dialogue in self.train:
            yield from dialogue.turns
            for text in dialogue.turns[::2]:
                yield text.lower()
        yield from self.helpers
        yield from self.toxic
        for exchange in self.exchanges:
            yield from (exchange.prompt, exchange.reply)

    def manifest(self) -> dict[str, Any]:
        return {
            "sources": [
                {"source": s.name, "rows": s.rows, "sha256": s.sha256, "licence": s.licence} for s in self.sources
            ],
            "missing": self.missing,
            "dialogues": {"train": len(self.train), "dev_rows": len(self.dev_rows), "dev_asks": len(self.dev_asks)},
            "rows_in_training": len({d.row for d in self.train}),
        }


def read(recipe: Data, seed: int) -> Corpus:
    """The corpus of a recipe. Raises `BadRows`, naming file and line, where an authored row is malformed."""
    corpus = Corpus()
    found = rows.read(dialogues=[recipe.authored], required=("control", "category"))
    for dialogues in rows.by_row(found.dialogues).values():
        _split(corpus, [_dialogue(row, ask) for ask, row in enumerate(dialogues)], recipe, seed)
    for source in found.sources:
        name = f"authored/{source.path.name}"
        corpus.sources.append(Source(name, source.rows, source.sha256, LICENCES["authored"]))
    if not corpus.train:
        raise ValueError(f"{recipe.authored}: no dialogues")
    corpus.guidance = _guidance(recipe.policies)
    for name in recipe.helpers:
        path = recipe.shared / "classification" / f"{name}.jsonl"
        if not path.is_file():
            corpus.missing.append(name)
            continue
        texts = _benign(path, recipe.helper_rows, seed)
        corpus.helpers.extend(texts)
        corpus.sources.append(Source(f"shared/{name}", len(texts), digest(path), LICENCES.get(name, "unknown")))
    if recipe.provoking:
        corpus.toxic = provoking.toxic(recipe.shared, recipe.provoking, seed)
        corpus.exchanges = provoking.exchanges(recipe.shared, recipe.provoking, seed)
        for file in provoking.manifest(recipe.shared):
            used = sum(exchange.id.startswith(Path(file["source"]).stem[:7]) for exchange in corpus.exchanges)
            corpus.sources.append(Source(f"shared/{file['source']}", used, file["sha256"], "see ATTRIBUTION.md"))
    return corpus


def _dialogue(row: rows.Dialogue, ask: int) -> Dialogue:
    """A row's turns. System messages are left out: batches bring their own."""
    turns = tuple(message["content"] for message in row.messages if message["role"] != "system")
    return Dialogue(row.id, row.control or "comply", row.category, turns, ask)


def _split(corpus: Corpus, dialogues: list[Dialogue], recipe: Data, seed: int) -> None:
    """Decided by a hash of the row's id, so that a row stays on its side as the files grow."""
    draw = random.Random(f"{seed}:{dialogues[0].row}")
    if draw.random() < recipe.dev_rows:
        corpus.dev_rows.extend(dialogues)
        return
    if len(dialogues) > 2 and draw.random() < recipe.dev_asks:
        corpus.dev_asks.append(dialogues.pop(draw.randrange(1, len(dialogues))))
    corpus.train.extend(dialogues)


def _guidance(policies: Path) -> list[str]:
    """What the gateway's own policies tell a model on the route `advise`."""
    texts: list[str] = []
    for path in sorted(policies.glob("*/policy.yml")):
        policy = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        texts.extend(str(text) for text in (policy.get("guidance") or {}).values())
    return list(dict.fromkeys(texts))


def _benign(path: Path, most: int, seed: int) -> list[str]:
    texts = []
    for row in read_jsonl(path):
        if row.get("label") == "safe" and row.get("triage", "benign") == "benign" and len(row["text"]) <= 1_200:
            texts.append(" ".join(row["text"].split()))
    texts = list(dict.fromkeys(texts))
    random.Random(f"{seed}:{path.name}").shuffle(texts)
    return texts[:most]
