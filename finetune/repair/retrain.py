"""Triage trained anew on the augmented set, and its operating points set where harm is refused as often as before.

Quick: on from the checkpoint, over the augmented set and a share of what it was trained on. Full: from the base, over
all of that and the augmented set. A classifier that refuses everything catches all harm, so fewer wrong refusals prove
nothing by themselves: the thresholds are chosen on calibration rows (the recipe's dev, less what is measured) as the
lowest false-positive budget at which the harmful recall there is at least what it was, plus a margin.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from classifiers import shipped
from classifiers.labels import LABELS
from finetune.repair import pool
from finetune.repair.contrast import Augmented
from finetune.repair.frames import holds
from finetune.repair.judge import Judge, Points
from finetune.repair.pool import Written
from finetune.repair.recipe import Triage
from finetune.repair.records import HARMLESS
from finetune.repair.triggers import Trigger
from finetune.triage import data, evaluate, export, points, recipe, train
from finetune.triage.row import Row
from gateway.report.odds import share

# Budgets that are tried, as multiples of the recipe's own: the mildest first.
_SCALES = tuple(float(one) for one in numpy.geomspace(0.05, 20, 60))


@dataclass(frozen=True, slots=True)
class Material:
    """The recipe's own rows. `calibration`: of its dev, what is not measured, by the pool's labels."""

    plan: recipe.Recipe
    train: list[Row]
    calibration: list[Row]
    manifest: list[dict[str, Any]]


def prepare(settings: Triage, folder: Path, measured: Collection[str], written: Sequence[Written]) -> Material:
    """Where recipe and pool call a text differently, the pool is right: the recipe may be what is to be repaired."""
    plan = recipe.read(settings.recipe)
    changed = recipe.Training.model_validate({**plan.training.model_dump(), **settings.training})
    split = data.build(plan.data, plan.training.seed)
    plan = plan.model_copy(update={"run_dir": folder, "weights_dir": folder / "weights", "training": changed})
    known = {pool.key(one.row.text): one.row for one in written}
    dev = []
    for row in split.dev:
        said = known.get(pool.key(row.text))
        if pool.key(row.text) not in measured:
            dev.append(replace(row, label=said.label, category=said.category, toxicity=said.toxicity) if said else row)
    kept = [row for row in split.train if pool.key(row.text) not in measured]
    return Material(plan, kept, dev, split.manifest)


def rows(material: Material, augmented: Augmented, triggers: Sequence[Trigger], settings: Triage) -> list[Row]:
    """What is trained on: the augmented set, and the recipe's own rows less those it overrules."""
    new = {pool.key(row.text) for row in augmented.rows}
    own = [row for row in material.train if pool.key(row.text) not in new]
    if settings.distrust:
        own = [row for row in own if not any(holds(row.text, one.part) for one in triggers)]
    if settings.mode == "quick" and len(own) > settings.rehearse:
        own = random.Random(material.plan.training.seed).sample(own, settings.rehearse)
    return [*augmented.rows, *own]


def run(material: Material, chosen: list[Row], settings: Triage, resume: bool) -> Path:
    """Fit and export; the folder of the weights, in the run's folder."""
    plan = material.plan
    start = settings.start or recipe.read(settings.recipe).run_dir / "checkpoint.pt"
    if settings.mode == "quick" and not start.is_file():
        raise FileNotFoundError(f"{start}: no such checkpoint; name another as triage.start, or use mode: full")
    model = train.fit(plan, chosen, resume, start=start if settings.mode == "quick" else None)
    return export.export(plan, model, data.Split(chosen, material.calibration, material.manifest))


def match(before: Judge, weights: Path, material: Material, margin: float, after: Judge) -> dict[str, Any]:
    """Set the operating points of `weights` as the module says; what was chosen. `after` judges with these weights."""
    rows = [row for row in material.calibration if row.label is not None]
    messages = [row.message for row in rows]
    truth = [str(row.label) for row in rows]
    harmful = [label not in HARMLESS for label in truth]

    def recall(routes: Sequence[str]) -> dict[str, Any]:
        refused = [route == "refuse" for route, bad in zip(routes, harmful, strict=True) if bad]
        return share(sum(refused), len(refused))

    was = recall(before.routes(messages, before.score(messages)))
    judged = after.score(messages)
    scores = numpy.array([[one.scores[label] for label in LABELS] for one in judged])
    chosen, now, scale = _mildest(
        material, truth, scores, was["share"], margin, lambda point: recall(after.routes(messages, judged, point))
    )
    path = weights / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "operating_points": chosen}, indent=1) + "\n", encoding="utf-8")
    shipped.seal(weights)
    reached = now["share"] >= was["share"]
    return {
        "rows": len(rows),
        "harmful before": was,
        "harmful after": now,
        "scale": round(scale, 3),
        "reached": reached,
    }


def _mildest(
    material: Material,
    truth: Sequence[str],
    scores: NDArray[numpy.float64],
    was: float,
    margin: float,
    recall: Callable[[Points], dict[str, Any]],
) -> tuple[Points, dict[str, Any], float]:
    """The first points at which the recall is over by the margin; else just reached; else the strictest."""
    tried = []
    for scale in _SCALES:
        budgets = {name: min(1.0, scale * budget) for name, budget in material.plan.operating_points.items()}
        chosen = {name: points.choose(truth, scores, budget) for name, budget in budgets.items()}
        tried.append((chosen, recall(chosen), scale))
        if tried[-1][1]["share"] >= was + margin:
            return tried[-1]
    return next((one for one in tried if one[1]["share"] >= was), tried[-1])


def describe(material: Material, chosen: list[Row], weights: Path) -> None:
    """The triage report on the calibration rows, and the card, as for any other training."""
    folder = material.plan.run_dir
    path = folder / "calibration.jsonl"
    known = ({"text": row.text, "before": row.before, "kind": row.kind, "label": row.label, "source": row.source,
              "category": row.category} for row in material.calibration)  # fmt: skip
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in known), encoding="utf-8")
    evaluate.run(path, folder / "triage-report", weights)
    export.write_card(
        material.plan, data.Split(chosen, material.calibration, material.manifest), folder / "triage-report"
    )
