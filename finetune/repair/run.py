"""`hhh finetune repair --recipe R.yaml [--resume]`: from refusal records to a classifier that refuses less, with proof.

Everything lies in `run_dir`: triggers.json, set.jsonl, checkpoint.pt, weights/, report.json, report.html. Weights go to
`weights_dir` only where the verdict lets them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.repair import contrast, matrix, model, page, pool, recipe, records, retrain, triggers
from finetune.repair.contrast import Augmented
from finetune.repair.judge import Judge
from finetune.repair.pool import Pool, Written
from finetune.repair.recipe import Recipe
from finetune.repair.records import Record
from finetune.repair.retrain import Material
from finetune.repair.triggers import Trigger
from finetune.triage import export
from finetune.triage import recipe as triage_recipe
from finetune.triage.row import Row
from gateway.call import Route

# Harmless texts of the pool that stand for what was let through where the records have too few.
_PASSED = 1_500


def run(path: Path, resume: bool = False) -> dict[str, Any]:
    """The report, as report.json has it. `resume` goes on from the run's own checkpoint.

    Raises `RecipeError`, `BadRecords`, `StaleCheckpoint`, `FileNotFoundError`.
    """
    began = time.monotonic()
    chosen = recipe.read(path)
    chosen.run_dir.mkdir(parents=True, exist_ok=True)
    found = records.read(chosen.records)
    rows = matrix.read(chosen.measure)
    old = chosen.triage.weights or triage_recipe.read(chosen.triage.recipe).weights_dir
    before = Judge(old, chosen.policy, chosen.rails_dir)
    material, free, unseen = _material(chosen, rows)
    sought = seek(chosen, found, free, before)
    reports = [one for one in found if pool.key(one.text) not in unseen]
    augmented = contrast.augment(sought, reports, Pool(free, chosen.seed), chosen.contrast, chosen.reports, chosen.seed)
    _keep(chosen.run_dir, sought, augmented)
    training = retrain.rows(material, augmented, sought, chosen.triage)
    weights = retrain.run(material, training, chosen.triage, resume)
    unmatched = Judge(weights, chosen.policy, chosen.rails_dir)
    point = retrain.match(before, weights, material, chosen.triage.margin, unmatched)
    retrain.describe(material, training, weights)
    routes = [_routes(judge, rows) for judge in (before, Judge(weights, chosen.policy, chosen.rails_dir))]
    was, now = (matrix.measured(rows, one, sought) for one in routes)
    report: dict[str, Any] = {
        "name": chosen.name,
        "at": time.time(),
        "records": _counts(found, len(found) - len(reports)),
        "triggers": [triggers.plain(one) for one in sought],
        "set": {"counts": dict(augmented.counts), "around": augmented.around, "guard": augmented.guard},
        "trained": {"rows": len(training), "mode": chosen.triage.mode, "epochs": material.plan.training.epochs},
        "point": point,
        "before": was,
        "after": now,
        "turned": matrix.turned(rows, *routes),
        "verdict": matrix.verdict(was, now, chosen.verdict),
    }
    if report["verdict"]["passed"] and chosen.weights_dir is not None:
        report["released"] = str(export.release(weights, chosen.weights_dir))
    if chosen.model is not None:
        report["model"] = model.run(chosen.model, chosen.run_dir / "model", found, sought, chosen.seed, resume)
    return _finish(chosen, report, began)


def _material(chosen: Recipe, rows: Sequence[Row]) -> tuple[Material, list[Written], set[str]]:
    """The recipe's rows, the pool that may be trained on, and the keys of what may not: measured and calibration."""
    measured = {pool.key(row.text) for row in rows}
    written = pool.read(records.files(chosen), measured)
    material = retrain.prepare(chosen.triage, chosen.run_dir, measured, written)
    unseen = measured | {pool.key(row.text) for row in material.calibration}
    return material, [one for one in written if pool.key(one.row.text) not in unseen], unseen


def seek(chosen: Recipe, found: Sequence[Record], free: Sequence[Written], judge: Judge) -> list[Trigger]:
    """The triggers: of triage's wrong refusals by odds and occlusion, else of the model's by odds."""
    by = "triage" if any(one.wrong and one.refused and one.by == "triage" for one in found) else "model"
    wrong = list(dict.fromkeys(one.text for one in found if one.wrong and one.refused and one.by == by))
    passed = [one.text for one in found if not one.wrong and not one.refused and one.by == by]
    if len(passed) < _PASSED:
        harmless = [one.row for one in free if one.row.label == "benign"]
        drawn = random.Random(chosen.seed).sample(harmless, min(_PASSED - len(passed), len(harmless)))
        routes = _routes(judge, drawn)
        passed += [row.text for row, route in zip(drawn, routes, strict=True) if route == "allow"]
    return triggers.find(wrong, passed, judge if by == "triage" else None, chosen.triggers, chosen.seed)


def _routes(judge: Judge, rows: Sequence[Row]) -> list[Route]:
    messages = [row.message for row in rows]
    return judge.routes(messages, judge.score(messages))


def _counts(found: Sequence[Record], unseen: int) -> dict[str, Any]:
    return {
        "read": len(found),
        "wrong_refusals": sum(one.wrong and one.refused for one in found),
        "missed_harm": sum(one.wrong and not one.refused for one in found),
        "never_trained_on": unseen,
        "keys": len({one.key for one in found}),
    }


def _keep(folder: Path, sought: Sequence[Trigger], augmented: Augmented) -> None:
    _write(folder / "triggers.json", [triggers.plain(one) for one in sought])
    with (folder / "set.jsonl").open("w", encoding="utf-8") as out:
        for row in augmented.rows:
            known = {"text": row.text, "label": row.label, "category": row.category, "source": row.source}
            out.write(json.dumps(known, ensure_ascii=False) + "\n")


def _finish(chosen: Recipe, report: dict[str, Any], began: float) -> dict[str, Any]:
    report["minutes"] = round((time.monotonic() - began) / 60, 1)
    _write(chosen.run_dir / "report.json", report)
    (chosen.run_dir / "report.html").write_text(page.html(report), encoding="utf-8")
    return report


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
