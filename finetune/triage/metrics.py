"""The numbers of a triage report. Pure functions over truths and probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from classifiers.labels import LABELS

Floats = NDArray[numpy.float64]
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def wilson(hits: int, total: int) -> dict[str, float | int]:
    """A share with its 95 % interval (Wilson 1927), which stays sensible at 0 and at 1."""
    if total == 0:
        return {"hits": 0, "total": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    z = 1.959964
    share = hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"hits": hits, "total": total, "share": share, "low": low, "high": high}


def confusion(truth: Sequence[str], found: Sequence[str]) -> NDArray[numpy.int64]:
    """(labels, labels): rows the truth, columns what was found, in the order of LABELS."""
    matrix = numpy.zeros((len(LABELS), len(LABELS)), numpy.int64)
    for expected, got in zip(truth, found, strict=True):
        matrix[LABELS.index(expected), LABELS.index(got)] += 1
    return matrix


def per_label(matrix: NDArray[numpy.int64]) -> dict[str, dict[str, Any]]:
    """Precision, recall (with interval) and F1 of each label."""
    out = {}
    for at, label in enumerate(LABELS):
        hits, actual, named = int(matrix[at, at]), int(matrix[at].sum()), int(matrix[:, at].sum())
        precision = hits / named if named else 0.0
        recall = wilson(hits, actual)
        total = precision + float(recall["share"])
        f1 = 2 * precision * float(recall["share"]) / total if total else 0.0
        out[label] = {"precision": precision, "recall": recall, "f1": f1, "rows": actual}
    return out


def flagged(truth: Sequence[str], found: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Any label but benign is a flag: false-positive rate on benign rows, recall on all others."""
    benign = [got != "benign" for expected, got in zip(truth, found, strict=True) if expected == "benign"]
    others = [got != "benign" for expected, got in zip(truth, found, strict=True) if expected != "benign"]
    return {"false_positive_rate": wilson(sum(benign), len(benign)), "recall": wilson(sum(others), len(others))}


def per_tier(tiers: Sequence[str], truth: Sequence[str]) -> dict[str, dict[str, dict[str, float | int]]]:
    """Per tier: the share of the benign rows that ended there, and of all others."""
    out = {}
    for tier in sorted(set(tiers)):
        benign = [got == tier for got, label in zip(tiers, truth, strict=True) if label == "benign"]
        others = [got == tier for got, label in zip(tiers, truth, strict=True) if label != "benign"]
        out[tier] = {"benign": wilson(sum(benign), len(benign)), "others": wilson(sum(others), len(others))}
    return out


def per_source(
    sources: Sequence[str], truth: Sequence[str], found: Sequence[str]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Per source and label: benign rows flagged, other rows flagged, and rows given exactly their label."""
    out: dict[str, dict[str, dict[str, float | int]]] = {}
    for source, label in sorted(set(zip(sources, truth, strict=True))):
        here = [got for s, t, got in zip(sources, truth, found, strict=True) if (s, t) == (source, label)]
        out[f"{source} / {label}"] = {
            "flagged": wilson(sum(got != "benign" for got in here), len(here)),
            "exact": wilson(sum(got == label for got in here), len(here)),
        }
    return out


def at_thresholds(truth: Sequence[str], scores: Floats) -> dict[str, list[dict[str, Any]]]:
    """Per risk and threshold: how many rows of that label reach it, and how many benign rows do."""
    expected = numpy.array(truth)
    out: dict[str, list[dict[str, Any]]] = {}
    for at, label in enumerate(LABELS[1:], start=1):
        out[label] = [
            {
                "threshold": least,
                "recall": wilson(int((scores[expected == label, at] >= least).sum()), int((expected == label).sum())),
                "false_positive_rate": wilson(
                    int((scores[expected == "benign", at] >= least).sum()), int((expected == "benign").sum())
                ),
            }
            for least in THRESHOLDS
        ]
    return out


def per_category(
    categories: Sequence[str | None], truth: Sequence[str], found: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Per category other than benign: how many of its rows got any label but benign."""
    named = [category if label != "benign" else None for category, label in zip(categories, truth, strict=True)]
    return {
        category: wilson(*_flags(got for one, got in zip(named, found, strict=True) if one == category))
        for category in sorted({category for category in named if category})
    }


def _flags(found: Iterable[str]) -> tuple[int, int]:
    flags = [got != "benign" for got in found]
    return sum(flags), len(flags)


def at_point(
    thresholds: Mapping[str, Mapping[str, float]], flags: Sequence[bool], truth: Sequence[str], sources: Sequence[str]
) -> dict[str, Any]:
    """What one operating point flags: of harmless rows, of all others, and per source and label."""
    by: dict[str, list[bool]] = {}
    for flag, label, source in zip(flags, truth, sources, strict=True):
        side = "benign" if label == "benign" else "others"
        for name in (side, f"{source} / {label}"):
            by.setdefault(name, []).append(flag)
    shares = {name: wilson(sum(one), len(one)) for name, one in sorted(by.items())}
    return {
        "thresholds": {label: dict(one) for label, one in thresholds.items()},
        "false_positive_rate": shares.pop("benign", wilson(0, 0)),
        "recall": shares.pop("others", wilson(0, 0)),
        "sources": shares,
    }


def roc(truth: Sequence[str], scores: Floats, steps: int = 200) -> dict[str, dict[str, Any]]:
    """Per risk: false-positive rate over benign rows against recall, and the area under that curve."""
    expected = numpy.array(truth)
    out: dict[str, dict[str, Any]] = {}
    for at, label in enumerate(LABELS[1:], start=1):
        positive, negative = scores[expected == label, at], scores[expected == "benign", at]
        if not len(positive) or not len(negative):
            continue
        thresholds = numpy.unique(numpy.quantile(numpy.concatenate([positive, negative]), numpy.linspace(0, 1, steps)))
        rates = [(float((negative >= one).mean()), float((positive >= one).mean())) for one in thresholds[::-1]]
        curve = [(0.0, 0.0), *rates, (1.0, 1.0)]
        ranks = numpy.searchsorted(numpy.sort(negative), positive, "left")
        ties = numpy.searchsorted(numpy.sort(negative), positive, "right") - ranks
        area = float((ranks + ties / 2).mean() / len(negative))
        out[label] = {"area": area, "curve": curve}
    return out


def reliability(truth: Sequence[str], scores: Floats, bins: int = 15) -> list[dict[str, float]]:
    """Per bin of confidence that has rows: mean confidence, accuracy, and the share of the rows."""
    confidence = scores.max(axis=1)
    right = scores.argmax(axis=1) == numpy.array([LABELS.index(label) for label in truth])
    which = numpy.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[which == at].mean()),
            "accuracy": float(right[which == at].mean()),
            "share": float((which == at).mean()),
        }
        for at in range(bins)
        if (which == at).any()
    ]


def calibration_error(truth: Sequence[str], scores: Floats, bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from accuracy, over bins of confidence, weighted by rows."""
    if not len(truth):
        return 0.0
    return sum(one["share"] * abs(one["confidence"] - one["accuracy"]) for one in reliability(truth, scores, bins))


def untempered(scores: Floats, temperature: float) -> Floats:
    """The probabilities as they would be without the temperature."""
    logs = numpy.log(numpy.clip(scores, 1e-12, None)) * temperature
    powers: Floats = numpy.exp(logs - logs.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def toxicity(truths: Sequence[float | None], found: Sequence[float], least: float = 0.5) -> dict[str, Any] | None:
    """Over rows whose toxicity is known to be high or low: shares at or over `least`. None where there are none."""
    known = [(truth, score) for truth, score in zip(truths, found, strict=True) if truth is not None]
    if not known:
        return None
    toxic = [score >= least for truth, score in known if truth >= 0.5]
    calm = [score >= least for truth, score in known if truth < 0.5]
    return {
        "threshold": least,
        "recall": wilson(sum(toxic), len(toxic)),
        "false_positive_rate": wilson(sum(calm), len(calm)),
    }
