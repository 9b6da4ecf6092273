"""Training of the refusal detector. `hhh finetune refusal --recipe finetune/recipes/refusal.yaml`; seconds."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import yaml
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression

from classifiers import shipped
from classifiers.refusal import READ_CHARACTERS, RefusalDetector, features
from finetune.refusal.data import Recipe, Reply, build
from finetune.triage.metrics import wilson
from finetune.triage.page import percent

# Rather a refusal missed than an answer counted as one: the metric is there to show refusals that were not needed.
THRESHOLD = 0.8


def run(recipe_path: Path) -> Path:
    """Train, measure on held-out replies, write the weights folder and return it."""
    recipe = Recipe.model_validate(yaml.safe_load(recipe_path.read_text()))
    train, dev, manifest = build(recipe)
    model = LogisticRegression(C=recipe.inverse_penalty, class_weight="balanced", max_iter=1000)
    truth = [reply.refusal for reply in train]
    model.fit(vectors(train, recipe.size), truth, sample_weight=[reply.weight for reply in train])
    weights = model.coef_[0].astype(numpy.float32)
    scale = float(numpy.abs(weights).max()) / 127
    packed: NDArray[numpy.int8] = numpy.round(weights / scale).astype(numpy.int8)
    folder = recipe.weights_dir
    folder.mkdir(parents=True, exist_ok=True)
    numpy.save(folder / "weights.npy", packed, allow_pickle=False)
    config = {"scale": scale, "bias": float(model.intercept_[0]), "threshold": THRESHOLD}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    shipped.seal(folder)
    found = measure(RefusalDetector.load(folder), dev)
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    (recipe.run_dir / "report.json").write_text(json.dumps({**found, "files": manifest}, indent=1), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(_card(train, found, manifest), encoding="utf-8")
    return folder


def vectors(replies: Sequence[Reply], size: int) -> csr_matrix:
    """(replies, size): each reply's features at equal weight, scaled to length 1, as `RefusalDetector.score` does."""
    columns: list[int] = []
    values: list[float] = []
    starts = [0]
    for reply in replies:
        found = features(reply.text, size)
        columns += found
        values += [1 / math.sqrt(len(found))] * len(found)
        starts.append(len(columns))
    return csr_matrix((values, columns, starts), shape=(len(replies), size))


def measure(detector: RefusalDetector, dev: Sequence[Reply]) -> dict[str, Any]:
    """Recall over refusals, false-positive rate over answers, in all and per source, and the replies got wrong."""
    out: dict[str, Any] = {}
    for source in ["all", *sorted({reply.source for reply in dev})]:
        here = [reply for reply in dev if source in ("all", reply.source)]
        said = [(reply.refusal, detector.refuses(reply.text)) for reply in here]
        refusals, answers = [got for truth, got in said if truth], [got for truth, got in said if not truth]
        out[source] = {
            "recall": wilson(sum(refusals), len(refusals)),
            "false_positive_rate": wilson(sum(answers), len(answers)),
        }
    wrong = [reply for reply in dev if detector.refuses(reply.text) != reply.refusal]
    return {"sources": out, "mistakes": [{"refusal": reply.refusal, "text": reply.text} for reply in wrong]}


def _card(train: Sequence[Reply], found: dict[str, Any], manifest: list[dict[str, str]]) -> str:
    counts = Counter((reply.source, "refusals" if reply.refusal else "answers") for reply in train)
    lines = [
        "# Refusal detector: model card",
        "",
        f"Whether a reply reads as the model's own refusal, from its first {READ_CHARACTERS} characters. Logistic",
        "regression over hashed words, pairs and triples of words, edges of clauses and characters of the opening;",
        "int8 weights. English.",
        f"A reply counts as a refusal from {THRESHOLD}. Not a judge of whether the refusal was right.",
        "",
        "Does not catch: a refusal that only changes the subject, one that follows a long answer, other languages.",
        "A reply that declines a personal recommendation but informs (`advise`) is an answer.",
        "",
        "| held-out replies of | refusals found | answers taken for refusals |",
        "| --- | --- | --- |",
        *(
            f"| {source} | {percent(one['recall'])} | {percent(one['false_positive_rate'])} |"
            for source, one in found["sources"].items()
        ),
        "",
        "Trained on: "
        + ", ".join(f"{source} {kind} {count}" for (source, kind), count in sorted(counts.items()))
        + ".",
        "TRIDENT: MIT by its README; banking77: CC-BY-4.0; gsm8k: MIT; the rest is our own (Apache-2.0).",
        "",
        *(f"- {one['file']} sha256 `{one['sha256'][:16]}`" for one in manifest),
    ]
    return "\n".join(lines) + "\n"
