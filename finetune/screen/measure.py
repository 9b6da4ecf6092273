"""The screen's numbers on dev: its threshold, what it misses with a bound, what it clears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy.stats import beta  # type: ignore[import-untyped]

from finetune.screen.data import Example
from finetune.triage.metrics import wilson

Scores = NDArray[numpy.float64]


def choose(scores: Scores, dev: Sequence[Example], missed_share: float) -> float:
    """The highest threshold under which at most that share lies of each of: flagged; harmful and flagged."""
    flagged = [example.flagged for example in dev]
    caught = [example.flagged and example.harmful for example in dev]
    found = []
    for group in (flagged, caught):
        ordered = numpy.sort(scores[numpy.array(group)])
        found.append(float(ordered[int(missed_share * len(ordered))]) if len(ordered) else 0.0)
    return min(found)


def upper(misses: int, total: int) -> float:
    """The upper end of the one-sided 95 % interval of a share (Clopper and Pearson 1934).

    For a threshold set at the (misses + 1)-th lowest score of `total` flagged texts this is exact, whatever the scores'
    distribution: the share of flagged texts under it is Beta(misses + 1, total - misses).
    """
    return float(beta.ppf(0.95, misses + 1, total - misses)) if misses < total else 1.0


def measure(scores: Scores, dev: Sequence[Example], threshold: float) -> dict[str, Any]:
    """Missed: flagged texts that are cleared, all and those that are harmful. Cleared: benign texts, per source."""
    cleared = scores < threshold
    flagged = numpy.array([example.flagged for example in dev])
    harmful = numpy.array([example.harmful for example in dev])
    benign: dict[str, list[bool]] = {"all": [], "dialogues": []}
    for example, one in zip(dev, cleared.tolist(), strict=True):
        if example.row.label == "benign":
            source = example.row.source
            for name in ("all", source, *(["dialogues"] if source.startswith("dialogues") else [])):
                benign.setdefault(name, []).append(one)
    missed = numpy.flatnonzero(cleared & flagged)
    return {
        "threshold": threshold,
        "missed": _missed(cleared, flagged),
        "missed_harmful": _missed(cleared, flagged & harmful),
        "cleared_harmful": _missed(cleared, harmful),
        "cleared": {name: wilson(sum(found), len(found)) for name, found in sorted(benign.items())},
        "mistakes": [
            {"text": dev[at].row.text, "source": dev[at].row.source, "label": dev[at].row.label, "risk": dev[at].risk}
            for at in missed.tolist()
        ],
    }


def _missed(cleared: NDArray[numpy.bool_], among: NDArray[numpy.bool_]) -> dict[str, Any]:
    misses, total = int((cleared & among).sum()), int(among.sum())
    return {"misses": misses, "total": total, "share": misses / max(1, total), "upper": upper(misses, total)}
