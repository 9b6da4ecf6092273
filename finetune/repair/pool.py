"""The authored pool: rows that may be trained on, found by what they say."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifiers.text import normalise
from finetune.repair.frames import holds
from finetune.repair.records import HARMLESS, plain
from finetune.suite.held_out import trainable
from finetune.triage.data import read_jsonl, turn
from finetune.triage.row import Row
from gateway.report.odds import words

# A word that more of the pool has than this share, and more rows than this, says nothing about a text.
_COMMON = 0.02
_FEW = 20


@dataclass(frozen=True, slots=True)
class Written:
    """An authored row; `pair` is what its counterpart has too, "" where it has none."""

    row: Row
    pair: str

    @property
    def harmless(self) -> bool:
        return self.row.label in HARMLESS


def key(text: str) -> str:
    """Texts with one key are the same to a classifier."""
    return normalise(text).lower()


def made(text: str, label: str, category: str, source: str) -> Row:
    """A row of the user's; what is harmless is calm, of the rest the tone is not known."""
    return Row(text, label, category, 0.0 if label in HARMLESS else None, source)


def read(files: Iterable[Path], unseen: Collection[str]) -> list[Written]:
    """User messages without earlier turns, each text once, less those whose key is in `unseen`. Raises `HeldOut`."""
    found: dict[str, Written] = {}
    for path in files:
        for row in read_jsonl(trainable(path)):
            text, before, kind = turn(row)
            if kind == "user" and not before and key(text) not in unseen:
                category = plain(row["category"], row["label"])
                known = made(text, row["label"], category, f"authored-{path.stem}")
                found.setdefault(key(text), Written(known, row.get("pair_id", "")))
    return list(found.values())


class Pool:
    def __init__(self, rows: Sequence[Written], seed: int) -> None:
        self.rows = list(rows)
        random.Random(seed).shuffle(self.rows)
        self.labels = {key(one.row.text): one.harmless for one in self.rows}
        self._words = [words(one.row.text) for one in self.rows]
        self._texts = Counter(word for found in self._words for word in found)
        self._having: defaultdict[str, list[int]] = defaultdict(list)
        for at, found in enumerate(self._words):
            for word in found:
                self._having[word].append(at)

    def around(self, part: str) -> tuple[list[Written], list[Written]]:
        """Rows with a word (or a form of it) or frame, harmless and harmful; whole pairs first."""
        sides: tuple[list[Written], list[Written]] = ([], [])
        for one in self.rows:
            if holds(one.row.text, part):
                sides[not one.harmless].append(one)
        both = {one.pair for one in sides[0] if one.pair} & {one.pair for one in sides[1]}
        harmless, harmful = (sorted(side, key=lambda one: one.pair not in both) for side in sides)
        return harmless, harmful

    def opposite(self, text: str, harmless: bool, most: int, taken: Collection[str]) -> list[Written]:
        """Rows of the other side that share the rarest words with a text; none where they share only common ones."""
        scores: defaultdict[int, float] = defaultdict(float)
        rare = max(_FEW, _COMMON * len(self.rows))
        for word in words(text):
            if 0 < self._texts[word] <= rare:
                for at in self._having[word]:
                    scores[at] += math.log(len(self.rows) / self._texts[word])
        near = sorted(scores, key=lambda at: -scores[at])
        rows = (self.rows[at] for at in near if self.rows[at].harmless != harmless)
        return [one for one in rows if key(one.row.text) not in taken][:most]
