"""Training of the screen, the last step of `hhh finetune triage`; minutes, most of it the encoder's scores.

The threshold is chosen on dev alone: the highest at which no more than `missed_share` of what the encoder flags there
is cleared, nor of what is harmful by its label and found by the encoder.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from classifiers import shipped
from classifiers.framing import text_tokenizer
from classifiers.screen import Screen, plain
from classifiers.text import normalise
from finetune.screen import model as screen_model
from finetune.screen.card import card
from finetune.screen.data import Example, build, shown
from finetune.screen.measure import choose, measure
from finetune.screen.model import ScreenModel
from finetune.triage import data as triage_data
from finetune.triage.export import release
from finetune.triage.model import base_folder
from finetune.triage.recipe import Recipe
from finetune.triage.recipe import Screen as Settings

# A piece that training saw less often has told the model nothing.
SEEN_LEAST = 3


def run(plan: Recipe, triage: triage_data.Split) -> Path:
    """Score, train, choose the threshold, measure on dev, write the weights folder and return it."""
    settings = plan.screen
    assert settings is not None
    split = build(plan, triage)
    folder = plan.run_dir / "screen"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(plan.weights_dir / "tokenizer.json", folder / "tokenizer.json")
    ids = encode(split.train, folder / "tokenizer.json")
    model = fit(settings, base_folder(plan.model.base), split.train, ids)
    arrays = screen_model.pack(model, _known(ids, len(model.pieces.weight)))
    with (folder / "weights.npz").open("wb") as out:
        numpy.savez(out, allow_pickle=False, **arrays)
    config = {
        "bias": float(model.out.bias.detach()[0]),
        "unknown_share": settings.unknown_share,
        "threshold": 0.0,
        "encoder": split.encoder,
        "flags": split.flags,
        "toxicity": settings.toxicity,
    }
    _write(folder, config)
    scores = served_scores(Screen.load(folder), split.dev)
    _write(folder, {**config, "threshold": choose(scores, split.dev, settings.missed_share)})
    found = measure(scores, split.dev, Screen.load(folder).threshold)
    (plan.run_dir / "screen.json").write_text(json.dumps({**found, "files": split.manifest}, indent=1) + "\n")
    (folder / "MODEL_CARD.md").write_text(card(settings, split, found), encoding="utf-8")
    return release(folder, settings.weights_dir)


def encode(examples: Sequence[Example], tokenizer: Path) -> list[list[int]]:
    """Word pieces of each text, at least one."""
    texts = [shown(example.row) for example in examples]
    return [found.ids or [0] for found in text_tokenizer(tokenizer).encode_batch_fast(texts, add_special_tokens=False)]


def target(example: Example) -> float:
    """1 for what is flagged, by the encoder or by us; else how near the encoder is to it, which tells more than a 0."""
    return 1.0 if example.flagged or example.harmful else max(example.risk, example.toxicity / 2)


def fit(plan: Settings, base: Path, examples: Sequence[Example], ids: Sequence[Sequence[int]]) -> ScreenModel:
    """The trained model."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    model = ScreenModel(screen_model.start(base, plan.size), plan.filters)
    rest = [value for name, value in model.named_parameters() if name != "pieces.weight"]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam([model.pieces.weight], lr=plan.learning_rate / 2),
        torch.optim.AdamW(rest, lr=plan.learning_rate, weight_decay=0.01),
    ]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    truth = torch.tensor([target(example) for example in examples])
    weight = torch.tensor([plan.flagged_weight if one >= 0.5 else 1.0 for one in truth])
    for epoch in range(plan.epochs):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 - epoch / plan.epochs)
        # Of like length together, in a new order each time.
        order = sorted(range(len(ids)), key=lambda at: (len(ids[at]) // 4, rng.random()))
        batches = [order[at : at + plan.batch_size] for at in range(0, len(order), plan.batch_size)]
        rng.shuffle(batches)
        total = 0.0
        for batch in batches:
            logits = model(*screen_model.collate([ids[at] for at in batch]))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth[batch], weight[batch])
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.4f}", flush=True)
    return model.eval()


def served_scores(screen: Screen, examples: Sequence[Example]) -> NDArray[numpy.float64]:
    """(examples,): the screen's scores as the cascade sees them; 1 where it does not ask."""
    scores = numpy.ones(len(examples))
    asked = [at for at, example in enumerate(examples) if plain(example.row.text)]
    alone = screen.score([normalise(examples[at].row.text) for at in asked])
    beside = screen.score([shown(examples[at].row) for at in asked])
    scores[asked] = numpy.maximum(alone, beside)
    return scores


def _known(ids: Sequence[Sequence[int]], vocabulary: int) -> NDArray[numpy.bool_]:
    counts = Counter(piece for text in ids for piece in set(text))
    known = numpy.zeros(vocabulary, bool)
    known[[piece for piece, count in counts.items() if count >= SEEN_LEAST]] = True
    return known


def _write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    shipped.seal(folder)
