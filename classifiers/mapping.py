"""Somebody else's labels to ours: how another classifier's probabilities become a judgement."""

from __future__ import annotations

from collections.abc import Mapping

from classifiers.labels import LABELS, label_of
from classifiers.message import Judgement


def judgement(probabilities: Mapping[str, float], labels: Mapping[str, str], several: bool, tier: str) -> Judgement:
    """`labels`: from their labels to one of ours, or to a category; what is not named is benign.

    `several`: whether their labels may hold together (a sigmoid each), so that the highest counts and not the sum.
    """
    found = dict.fromkeys(LABELS[1:], 0.0)
    leading: dict[str, tuple[float, str]] = {}
    for theirs, ours in labels.items():
        share, label = probabilities.get(theirs, 0.0), label_of(ours)
        if label not in found:
            continue
        found[label] = max(found[label], share) if several else min(1.0, found[label] + share)
        leading[label] = max(leading.get(label, (-1.0, label)), (share, ours))
    benign = 1 - (max(found.values()) if several else min(1.0, sum(found.values())))
    scores = {"benign": benign, **found}
    best = max(LABELS, key=lambda label: (scores[label], LABELS.index(label)))
    category = leading[best][1] if best in leading else best
    return Judgement(best, category, scores, 0.0, tier=tier)
