"""Does a reply read as the model's own refusal? Hashed n-grams and a logistic regression, well under a millisecond.

Catches the ways in which English-speaking assistants say no, with or without an apology or a reason, when they do so
in the first 400 characters. Does not catch: a refusal that only changes the subject, one that follows a long answer, an
empty reply, other languages. A reply that withholds a recommendation but informs is meant to count as an answer; short
ones ("I can't say what to buy, but here is how people choose") are sometimes taken for refusals.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path

import numpy
from numpy.typing import NDArray

from classifiers import shipped
from classifiers.text import normalise

READ_CHARACTERS = 400
_CLAUSE = re.compile(r"[.!?;:,]\s")
_WORD = re.compile(r"[a-z']+|\d+|[^\sa-z\d]")


def features(text: str, size: int) -> list[int]:
    """The distinct hashed features of a text's beginning: words, pairs and triples of them, characters of the opening.

    The first and last words of a clause are features of their own, since that is where a refusal mostly says no.
    `size` is a power of 2.
    """
    text = normalise(text[: 2 * READ_CHARACTERS])[:READ_CHARACTERS].lower().replace("\u2019", "'")
    words = _WORD.findall(text)
    found = set(words)
    for count in (2, 3):
        found.update(" ".join(words[at : at + count]) for at in range(len(words) - count + 1))
    found.update("^" + " ".join(words[:count]) for count in range(1, 6))
    for clause in _CLAUSE.split(text)[:8]:
        said = _WORD.findall(clause)
        found.update("|" + " ".join(said[:count]) for count in range(1, 5))
        found.update("$" + " ".join(said[-count:]) for count in range(1, 5))
    opening = f"<{text[:60]}>"
    found.update("#" + opening[at : at + 4] for at in range(len(opening) - 3))
    return sorted({zlib.crc32(feature.encode("utf-8", "replace")) & (size - 1) for feature in found})


class RefusalDetector:
    """The trained detector. `threshold` is the score from which a reply counts as a refusal."""

    def __init__(self, weights: NDArray[numpy.float32], bias: float, threshold: float) -> None:
        self._weights = weights
        self._bias = bias
        self.threshold = threshold

    @classmethod
    def load(cls, folder: Path | None = None) -> RefusalDetector:
        """From a weights folder (None: the shipped one). Raises `shipped.CorruptWeights`."""
        folder = shipped.verified(folder or shipped.REFUSAL)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        packed = numpy.load(folder / "weights.npy", allow_pickle=False)
        return cls(packed.astype(numpy.float32) * config["scale"], config["bias"], config["threshold"])

    def score(self, text: str) -> float:
        """The probability, 0..1, that the reply is a refusal. 0 for an empty text."""
        found = features(text, len(self._weights))
        if not found or not text.strip():
            return 0.0
        total = float(self._weights[found].sum()) / math.sqrt(len(found)) + self._bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))

    def refuses(self, text: str) -> bool:
        """Whether the score reaches the threshold."""
        return self.score(text) >= self.threshold
