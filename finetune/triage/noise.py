"""Label noise: training rows whose label the rest of the data speaks against. See `hhh triage noise`.

Confident learning (Northcutt, Jiang and Chuang 2021), by its class thresholds: probabilities come from folds that the
row was not in, by a logistic regression on the frozen base encoder's embeddings, which is too weak to learn a wrong
label by heart. A row is suspect when another label reaches that label's mean self-confidence and its own does not.

What it finds are candidates to read, not errors: hard contrast rows look the same to a weak model. Of public rows only
hashes are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from classifiers.labels import LABELS
from finetune.triage import batches, data, recipe
from finetune.triage.metrics import wilson
from finetune.triage.model import TriageModel, base_folder
from finetune.triage.row import Row

FOLDS = 5
_TOKENS = 128


def run(recipe_path: Path, report: Path) -> Path:
    """Write `noise.json` (per source, how many rows are suspect) and `suspects.jsonl`; the latter's path."""
    plan = recipe.read(recipe_path)
    split = data.build(plan.data.model_copy(update={"composed": 0, "authored_repeat": 1}), plan.training.seed)
    rows = [row for row in split.train if row.label is not None]
    shares = probabilities(embed(rows, base_folder(plan.model.base)), [str(row.label) for row in rows])
    truth = numpy.array([LABELS.index(str(row.label)) for row in rows])
    found = suspects(shares, truth)
    report.mkdir(parents=True, exist_ok=True)
    by_source: dict[str, Any] = {}
    for source in sorted({row.source for row in rows}):
        here = [bool(found[at]) for at, row in enumerate(rows) if row.source == source]
        by_source[source] = wilson(sum(here), len(here))
    summary = {"rows": len(rows), "suspect": int(found.sum()), "sources": by_source}
    (report / "noise.json").write_text(json.dumps(summary, indent=1) + "\n")
    path = report / "suspects.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for at in sorted(numpy.flatnonzero(found).tolist(), key=lambda at: float(shares[at, truth[at]])):
            out.write(json.dumps(_entry(rows[at], shares[at]), ensure_ascii=False) + "\n")
    return path


def suspects(shares: NDArray[numpy.float64], truth: NDArray[numpy.int64]) -> NDArray[numpy.bool_]:
    """(rows,): which rows' labels are in doubt. `shares` (rows, labels): out-of-fold probabilities."""
    rows = numpy.arange(len(truth))
    own = shares[rows, truth]
    thresholds = numpy.array(
        [own[truth == label].mean() if (truth == label).any() else 2.0 for label in range(shares.shape[1])]
    )
    reached = shares >= thresholds
    reached[rows, truth] = False
    other = numpy.where(reached, shares, 0.0).max(axis=1)
    result: NDArray[numpy.bool_] = (other > own) & (own < thresholds[truth])
    return result


def probabilities(embeddings: NDArray[numpy.float32], truth: Sequence[str]) -> NDArray[numpy.float64]:
    """(rows, labels): from folds that a row was not in."""
    known = sorted(set(truth), key=LABELS.index)
    model = LogisticRegression(max_iter=500, C=10.0)
    shares = cross_val_predict(
        model, embeddings, [known.index(label) for label in truth], cv=FOLDS, method="predict_proba"
    )
    out = numpy.zeros((len(truth), len(LABELS)))
    out[:, [LABELS.index(label) for label in known]] = shares
    return out


def embed(rows: Sequence[Row], base: Path) -> NDArray[numpy.float32]:
    """(rows, width): the base encoder's mean-pooled sentence embeddings."""
    encoder = TriageModel(base).encoder.eval()
    ids = batches.encode(list(rows), batches.framing(base, _TOKENS))
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    out = numpy.zeros((len(rows), encoder.config.hidden_size), numpy.float32)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = batches.collate([rows[at] for at in chosen], [ids[at] for at in chosen])
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        mask = batch.attention_mask.unsqueeze(-1)
        out[chosen] = ((hidden.float() * mask).sum(1) / mask.sum(1)).numpy()
    return out


def _entry(row: Row, shares: NDArray[numpy.float64]) -> dict[str, Any]:
    ours = row.source.startswith(("authored", "dialogues"))
    said = {"text": row.text} if ours else {"sha256": data.text_hash(row.text)}
    likely = LABELS[int(shares.argmax())]
    own = round(float(shares[LABELS.index(str(row.label))]), 3)
    return {"source": row.source, **said, "label": row.label, "own": own, "likelier": likely}
