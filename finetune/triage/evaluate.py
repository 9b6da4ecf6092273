"""Measure triage on labelled rows. `hhh triage eval --data LABELLED.jsonl --report DIR`.

The classifier as it is served is measured: quantised, calibrated, with other readings, passages and context, and behind
its screen if it has one. Routes are a policy's affair: the report says what each operating point and threshold costs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import yaml

from classifiers import shipped
from classifiers.cascade import Cascade
from classifiers.labels import LABELS
from classifiers.message import Judgement
from finetune.triage import metrics, page, pictures, points
from finetune.triage.data import read_jsonl, turn
from finetune.triage.export import calibrates
from finetune.triage.row import Row

Point = Mapping[str, Mapping[str, float]]


def run(data: Path, report: Path, weights: Path | None, rate: float | None = None) -> dict[str, Any]:
    """Write `report.json`, `report.html`, `confusion.csv`, `mistakes.jsonl` and pictures into `report`.

    Rows are `{"text" | "messages", "label"}`, with `category`, `source` (or `suite`) and `toxicity` where known.
    `rate`: a false-positive rate (0..1) to choose thresholds for; they go to `routes.yml`. Raises `ValueError`, by row.
    """
    rows = list(_rows(data))
    folder = weights or shipped.TRIAGE
    triage = Cascade.load(folder, threads=2)
    judged: list[Judgement] = []
    for start in range(0, len(rows), 64):
        judged += triage.score([row.message for row in rows[start : start + 64]])
    temperature = json.loads((folder / "config.json").read_text())["temperature"]
    found = {"weights": folder.name, **measure(rows, judged, temperature, triage.operating_points, rate)}
    report.mkdir(parents=True, exist_ok=True)
    (report / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    pictures.draw(found, report)
    (report / "report.html").write_text(page.html(found, report), encoding="utf-8")
    if rate is not None:
        (report / "routes.yml").write_text(_routes(found["operating_points"]["asked for"]["thresholds"]))
    with (report / "mistakes.jsonl").open("w", encoding="utf-8") as out:
        for row, one in zip(rows, judged, strict=True):
            if row.label not in (None, one.label):
                scores = {label: round(score, 3) for label, score in one.scores.items()}
                known = {"text": row.text, "before": row.before, "label": row.label, "source": row.source}
                out.write(json.dumps({**known, "found": one.label, "scores": scores}, ensure_ascii=False) + "\n")
    return found


def measure(
    rows: Sequence[Row], judged: Sequence[Judgement], temperature: float, named: Mapping[str, Point], rate: float | None
) -> dict[str, Any]:
    """All figures of a report. Rows without a label count for toxicity only."""
    labelled = [(row, one) for row, one in zip(rows, judged, strict=True) if row.label is not None]
    truth = [str(row.label) for row, _ in labelled]
    found = [one.label for _, one in labelled]
    sources = [row.source for row, _ in labelled]
    scores = numpy.array([[one.scores[label] for label in LABELS] for _, one in labelled]).reshape(-1, len(LABELS))
    matrix = metrics.confusion(truth, found)
    # A screened text has no tempered scores.
    fresh = [at for at, (row, one) in enumerate(labelled) if one.tier == "encoder" and not calibrates(row.text)]
    unseen = [truth[at] for at in fresh]
    raw = metrics.untempered(scores[fresh], temperature)
    refined = [
        one.category == row.category
        for row, one in labelled
        if row.category and row.label != "benign" and one.label == row.label
    ]
    chosen: dict[str, Point] = dict(named)
    if rate is not None:
        chosen["asked for"] = points.choose(truth, scores, rate)
    return {
        "rows": len(labelled),
        "confusion": matrix.tolist(),
        "tiers": metrics.per_tier([one.tier for _, one in labelled], truth),
        "labels": metrics.per_label(matrix),
        "flagged": metrics.flagged(truth, found),
        "sources": metrics.per_source(sources, truth, found),
        "categories": metrics.per_category([row.category for row, _ in labelled], truth, found),
        "operating_points": {
            name: metrics.at_point(point, points.flagged(scores, point).tolist(), truth, sources)
            for name, point in chosen.items()
        },
        "thresholds": metrics.at_thresholds(truth, scores),
        "roc": metrics.roc(truth, scores),
        "category": metrics.wilson(sum(refined), len(refined)),
        "toxicity": metrics.toxicity([row.toxicity for row in rows], [one.toxicity for one in judged]),
        "ece": {
            "before": metrics.calibration_error(unseen, raw),
            "after": metrics.calibration_error(unseen, scores[fresh]),
            "rows": len(fresh),
        },
        "reliability": {
            "before": metrics.reliability(unseen, raw),
            "after": metrics.reliability(unseen, scores[fresh]),
        },
    }


def _rows(data: Path) -> list[Row]:
    found = []
    for number, row in enumerate(read_jsonl(data, to_train=False), start=1):
        if row.get("label") is not None and row["label"] not in LABELS:
            raise ValueError(f"{data}: row {number}: label {row['label']!r} is none of {', '.join(LABELS)}")
        try:
            text, before, kind = turn(row)
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{data}: row {number}: neither `text` nor `messages`") from None
        source = row.get("suite") or row.get("source") or "data"
        found.append(Row(text, row.get("label"), row.get("category"), row.get("toxicity"), source, before, kind))
    return found


def _routes(point: Point) -> str:
    """A point as the block that goes into `policy.yml`."""
    routes = {}
    for label, one in point.items():
        acts = "advise" if label == "regulated_advice" else "refuse"
        routes[label] = {acts: one["act"], "review": one["doubt"]}
    return yaml.safe_dump({"routes": routes}, sort_keys=False)
