"""python benchmarks/first_cut.py

Where triage started: a logistic regression on frozen MiniLM embeddings, trained on the public sets alone, against the
encoder that is shipped, on the dev file that neither was trained on. Per suite, the share that gets another label than
benign. Needs the extra `finetune` and the public sets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy
from sklearn.linear_model import LogisticRegression

from classifiers.cascade import Cascade
from classifiers.labels import LABELS
from finetune.triage import data, recipe
from finetune.triage.model import base_folder
from finetune.triage.noise import embed
from finetune.triage.row import Row

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / "finetune" / "data" / "authored" / "dev" / "judge.jsonl"


def main() -> None:
    plan = recipe.read(ROOT / "finetune" / "recipes" / "triage.yaml")
    alone = plan.data.model_copy(
        update={"authored": [], "dialogues": [], "labels": {}, "dev_only": [], "composed": 0, "planted": 0}
    )
    learnt = [row for row in data.build(alone, plan.training.seed).train if row.label is not None]
    rows = list(map(json.loads, DEV.open(encoding="utf-8")))
    turns = [data.turn(row) for row in rows]
    asked = [Row(text, row["label"], None, None, row["suite"], before, kind) for row, (text, before, kind) in
             zip(rows, turns, strict=True)]  # fmt: skip
    base = base_folder(plan.model.base)
    model = LogisticRegression(max_iter=500, C=10.0)
    model.fit(embed(learnt, base), [LABELS.index(str(row.label)) for row in learnt])
    first = model.predict(embed(asked, base)) != 0
    ours = numpy.array([one.label != "benign" for one in Cascade.load(threads=2).score([row.message for row in asked])])
    print(f"trained on {len(learnt)} public rows; {len(asked)} rows of dev")
    for suite, risky in sorted({(row.source, row.label != "benign") for row in asked}):
        here = numpy.array([row.source == suite and (row.label != "benign") == risky for row in asked])
        kind = "caught " if risky else "flagged"
        print(
            f"{suite:18} {kind} of {here.sum():4}: first cut {first[here].mean():6.1%}   now {ours[here].mean():6.1%}"
        )


if __name__ == "__main__":
    main()
