"""Measure triage on labelled rows. `hhh triage eval --data LABELLED.jsonl --report DIR`.

The classifier as it is served is measured: quantised, calibrated, with windows, and behind its screen if it has one.
Routes are a policy's affair: the report's threshold table says what each score costs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy

from classifiers import shipped
from classifiers.cascade import Cascade
from classifiers.labels import LABELS
from classifiers.triage import Judgement
from finetune.triage import figures, metrics
from finetune.triage.data import read_jsonl
from finetune.triage.export import calibrates


def run(data: Path, report: Path, weights: Path | None) -> None:
    """Write `report.json`, `confusion.csv`, `confusion.png` and `report.html` into `report`.

    Rows are `{"text", "label"}`, with `source` and `toxicity` where known. Raises `ValueError` for an unknown label.
    """
    rows = list(read_jsonl(data))
    for number, row in enumerate(rows, start=1):
        if row.get("label") is not None and row["label"] not in LABELS:
            raise ValueError(f"{data}: row {number}: label {row['label']!r} is none of {', '.join(LABELS)}")
    folder = weights or shipped.TRIAGE
    triage = Cascade.load(folder, threads=2)
    judged: list[Judgement] = []
    for start in range(0, len(rows), 64):
        judged += triage.score([row["text"] for row in rows[start : start + 64]])
    temperature = json.loads((folder / "config.json").read_text())["temperature"]
    found = {"weights": folder.name, **measure(rows, judged, temperature)}
    report.mkdir(parents=True, exist_ok=True)
    (report / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    matrix = numpy.array(found["confusion"], numpy.int64)
    figures.tabulate(matrix, report / "confusion.csv")
    figures.draw(matrix, report / "confusion.png")
    (report / "report.html").write_text(figures.page(found, report / "confusion.png"), encoding="utf-8")
    with (report / "mistakes.jsonl").open("w", encoding="utf-8") as out:
        for row, one in zip(rows, judged, strict=True):
            if row.get("label") not in (None, one.label):
                scores = {label: round(score, 3) for label, score in one.scores.items()}
                out.write(json.dumps({**row, "found": one.label, "scores": scores}, ensure_ascii=False) + "\n")


def measure(rows: list[dict[str, Any]], judged: list[Judgement], temperature: float) -> dict[str, Any]:
    """All figures of a report. Rows without a label count for toxicity only."""
    labelled = [(row, one) for row, one in zip(rows, judged, strict=True) if row.get("label") is not None]
    truth = [row["label"] for row, _ in labelled]
    found = [one.label for _, one in labelled]
    sources = [row.get("source") or "data" for row, _ in labelled]
    scores = numpy.array([[one.scores[label] for label in LABELS] for _, one in labelled]).reshape(-1, len(LABELS))
    matrix = metrics.confusion(truth, found)
    # A screened text has no tempered scores.
    fresh = [at for at, (row, one) in enumerate(labelled) if one.tier == "encoder" and not calibrates(row["text"])]
    unseen = [truth[at] for at in fresh]
    refined = [
        one.category == row["category"]
        for row, one in labelled
        if row.get("category") and row["label"] != "benign" and one.label == row["label"]
    ]
    return {
        "rows": len(labelled),
        "confusion": matrix.tolist(),
        "tiers": metrics.per_tier([one.tier for _, one in labelled], truth),
        "labels": metrics.per_label(matrix),
        "flagged": metrics.flagged(truth, found),
        "sources": metrics.per_source(sources, truth, found),
        "thresholds": metrics.at_thresholds(truth, scores),
        "category": metrics.wilson(sum(refined), len(refined)),
        "toxicity": metrics.toxicity(rows, [one.toxicity for one in judged]),
        "ece": {
            "before": metrics.calibration_error(unseen, metrics.untempered(scores[fresh], temperature)),
            "after": metrics.calibration_error(unseen, scores[fresh]),
            "rows": len(fresh),
        },
    }
