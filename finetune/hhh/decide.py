"""When a model's own choice of control token is followed: thresholds from held-out triage rows, and how well they do.

Where nobody says how to answer (`auto`), the model's next token is a control token. `refuse` and `advise` are followed
from a probability on that lets through at most a given share of the rows that should have been answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.hhh.corpus import Decision
from gateway.upstream.layout import CONTROLS, PromptTooLong, own

WRONGLY = {"refuse": 0.01, "advise": 0.02}
NAMES = tuple(CONTROLS)
Shares = NDArray[np.float64]


def shares(logits: Callable[[str], NDArray[np.float32]], rows: Sequence[Decision]) -> tuple[list[Decision], Shares]:
    """The rows that fit the model's context, and for each the probabilities [rows, 3] of `NAMES`.

    `logits` gives those of the three control tokens after a user's text.
    """
    kept, found = [], []
    for row in rows:
        try:
            each = logits(row.text).astype(np.float64)
        except PromptTooLong:
            continue
        odds = np.exp(each - each.max())
        kept.append(row)
        found.append(odds / odds.sum())
    return kept, np.array(found).reshape(len(kept), len(NAMES))


def thresholds(rows: Sequence[Decision], found: Shares) -> dict[str, float]:
    """For `refuse` over all rows that are not to be refused, for `advise` over those to be answered."""
    chosen = {}
    for name, wrongly in WRONGLY.items():
        others = [row.control != "refuse" if name == "refuse" else row.control == "comply" for row in rows]
        scores = np.sort(found[np.array(others, dtype=bool), NAMES.index(name)])[::-1]
        if not len(scores):
            raise ValueError(f"no held-out row to choose the threshold of {name} on")
        allowed = int(wrongly * len(scores))
        # Just over the score that may no longer pass, to six digits.
        chosen[name] = (math.floor(1e6 * scores[min(allowed, len(scores) - 1)]) + 1) / 1e6
    return chosen


def decisions(found: Shares, limits: dict[str, float]) -> list[str]:
    """What the engine does with such probabilities."""
    return [own(row, limits) for row in found]


def figures(rows: Sequence[Decision], found: Shares, limits: dict[str, float]) -> dict[str, Any]:
    """Per right token: how many rows got which."""
    made = decisions(found, limits)
    counts = {right: dict.fromkeys(NAMES, 0) for right in NAMES}
    for row, name in zip(rows, made, strict=True):
        counts[row.control][name] += 1
    return counts
