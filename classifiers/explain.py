"""Which words moved a score: each is left out in turn (occlusion), and the score's fall is what it weighs.

Costs one classification per word or, in a long text, per group of neighbouring words. A word's weight says what the
classifier looked at, not why; words that only count together each seem light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from classifiers.message import Classifier, Message

_WORD = re.compile(r"\S+")
MOST_PARTS = 48


@dataclass(frozen=True, slots=True)
class Weight:
    """`words` as they stand in the text, from `start` to `end`; `weight`: how far the score falls without them."""

    words: str
    start: int
    end: int
    weight: float


def explain(classifier: Classifier, message: Message, label: str, most: int = 5, together: int = 1) -> list[Weight]:
    """The words without which the label's score falls most, the weightiest first; none where none makes it fall.

    `together`: how many neighbouring words are left out at a time, at least.
    """
    parts = _parts(message.text, together)
    variants = [Message(_without(message.text, *part), message.before, message.kind) for part in parts]
    whole, *rest = classifier.score([message, *variants])
    score = whole.scores[label]
    weights = [
        Weight(message.text[start:end], start, end, round(score - one.scores[label], 4))
        for (start, end), one in zip(parts, rest, strict=True)
    ]
    heaviest = sorted((one for one in weights if one.weight > 0.01), key=lambda one: -one.weight)
    return heaviest[:most]


def _parts(text: str, together: int) -> Sequence[tuple[int, int]]:
    words = [match.span() for match in _WORD.finditer(text)]
    size = max(-(-len(words) // MOST_PARTS), together)
    return [(words[at][0], words[min(at + size, len(words)) - 1][1]) for at in range(0, len(words), size)]


def _without(text: str, start: int, end: int) -> str:
    return f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()
