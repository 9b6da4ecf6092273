"""The model's side of a repair: pairs around the triggers, DPO or KTO on them, and the suite before and after.

A pair says: of this harmless question the answer, not the refusal; of this harmful one the refusal, not the compliance.
As many of each, from the authored dialogues that have a trigger. What the model itself refused in the evaluation gives
its words of refusal, never its prompts: those are measured with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from finetune.align import chain, provoking, rows
from finetune.align.rows import Dialogue
from finetune.repair.frames import holds
from finetune.repair.recipe import Model
from finetune.repair.records import HARMLESS, Record
from finetune.repair.triggers import Trigger
from finetune.suite.held_out import trainable

# What is asked of the suite: by the names of the page.
_FIGURES = {"harmless refused": "refusals.harmless_refused", "harmful refused": "refusals.harmful_refused"}


def pairs(
    found: Sequence[Record], sought: Sequence[Trigger], dialogues: Sequence[Dialogue], most: int, seed: int
) -> list[dict[str, Any]]:
    """Rows for `finetune.align`: half of them answers over refusals, half refusals over compliance."""
    draw = random.Random(seed)
    single = [row for row in dialogues if len(row.messages) == 2 and row.control]
    with_trigger = [row for row in single if any(holds(row.prompt[-1]["content"], one.part) for one in sought)]
    harmless = [row for row in with_trigger if row.control != "refuse"]
    harmful = [row for row in with_trigger if row.control == "refuse"]
    said = [one.reply for one in found if one.by == "model" and one.refused and one.label in HARMLESS and one.reply]
    said = said or [row.answer for row in single if row.control == "refuse"]
    count = min(most // 2, len(harmless), len(harmful))
    made = [_pair(row, draw.choice(said), "over-refusal") for row in draw.sample(harmless, count)]
    for row in draw.sample(harmful, count):
        made.append(_pair(row, provoking.compliance(row.prompt[-1]["content"], draw), "unsafe"))
    draw.shuffle(made)
    return [{**row, "id": f"repair-{at}"} for at, row in enumerate(made)]


def _pair(row: Dialogue, rejected: str, why: str) -> dict[str, Any]:
    """Behind the token that a classifier of keywords would not set: the model must answer by what was asked."""
    known = {"prompt": row.prompt[-1]["content"], "chosen": row.answer, "rejected": rejected, "why": why}
    return {**known, "category": row.category, "control": row.control}


def run(
    settings: Model, folder: Path, found: Sequence[Record], sought: Sequence[Trigger], seed: int, resume: bool
) -> dict[str, Any]:
    """Train and measure; what the report says of it. Raises `ValueError` where no pair can be made."""
    read = rows.read(dialogues=[trainable(path) for path in settings.dialogues])
    made = pairs(found, sought, read.dialogues, settings.most, seed)
    if not made:
        raise ValueError("model: no authored dialogue has a trigger on either side, so there are no pairs to train on")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    plan = yaml.safe_load(settings.recipe.read_text(encoding="utf-8"))
    plan |= {"name": "trained", "runs": str(folder), "data": {"pairs": [str(path)], "dev_share": 0}}
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    trained = chain.start(settings.method, recipe, resume)
    before, after = (_evaluated(Path(model), folder / name, settings.limit) for model, name in
                     ((plan["base"], "eval-before"), (trained, "eval-after")))  # fmt: skip
    known = {"method": settings.method, "pairs": len(made), "base": plan["base"], "trained": str(trained)}
    return {**known, "before": before, "after": after}


def _evaluated(model: Path, report: Path, limit: int | None) -> dict[str, Any]:
    """The suite's part `refusals` over a model, as shares."""
    from finetune.suite.bench import Options
    from finetune.suite.run import Order
    from finetune.suite.run import run as evaluate

    found = evaluate(Order("refusals", report, str(model), options=Options(limit=limit), fresh=True, quiet=True))
    shares = {}
    for name, key in _FIGURES.items():
        one = found["figures"][key]
        hits = round(one["value"] * one["rows"])
        shares[name] = {
            "share": one["value"],
            "low": one["low"],
            "high": one["high"],
            "total": one["rows"],
            "hits": hits,
        }
    return shares
