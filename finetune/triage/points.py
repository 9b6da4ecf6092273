"""Operating points: per label the scores from which triage doubts and acts, for a false-positive rate that is named.

A point's budget is the share of harmless rows that may get any route but `allow`. It is split over the labels by
`SHARES`, so that the union keeps to it, and each label's `doubt` is the lowest threshold that keeps to its part; `act`
is the lowest at which a third of that part is flagged (of advice, six tenths). Labels other than the row's own that are
as grave do not count as errors here: which of two risks a text is, the category says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
from numpy.typing import NDArray

from classifiers.labels import LABELS

SHARES: Mapping[str, float] = {
    "regulated_advice": 0.1, "harmful": 0.62, "hate": 0.09, "self_harm": 0.09, "prompt_injection": 0.1,
}  # fmt: skip
LEAST = 0.05
# Advice is never refused, so acting on it costs little.
ACT_SHARES: Mapping[str, float] = {"regulated_advice": 0.6}
ACT_SHARE = 1 / 3

Point = dict[str, dict[str, float]]


def choose(truth: Sequence[str], scores: NDArray[numpy.float64], budget: float) -> Point:
    """`scores` (rows, labels). `budget` in 0..1. Raises `ValueError` without harmless rows."""
    harmless = scores[numpy.array([label == "benign" for label in truth], bool)]
    if not len(harmless):
        raise ValueError("no harmless rows to measure a false-positive rate on")
    point: Point = {}
    for label, share in SHARES.items():
        falling = numpy.sort(harmless[:, LABELS.index(label)])[::-1]
        doubt = _threshold(falling, budget * share)
        act = max(doubt, _threshold(falling, budget * share * ACT_SHARES.get(label, ACT_SHARE)))
        point[label] = {"doubt": round(doubt, 4), "act": round(act, 4)}
    return point


def _threshold(falling: NDArray[numpy.float64], share: float) -> float:
    """The least threshold that at most this share of the scores reaches."""
    allowed = int(share * len(falling))
    return max(LEAST, float(falling[allowed]) + 1e-4) if allowed < len(falling) else LEAST


def flagged(scores: NDArray[numpy.float64], point: Mapping[str, Mapping[str, float]]) -> NDArray[numpy.bool_]:
    """(rows,): which rows get a route other than `allow`."""
    out = numpy.zeros(len(scores), bool)
    for label, thresholds in point.items():
        out |= scores[:, LABELS.index(label)] >= min(thresholds.values())
    return out
