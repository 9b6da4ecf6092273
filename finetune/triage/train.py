"""Training of triage: data, fit, export, evaluation. `hhh finetune triage --recipe finetune/recipes/triage.yaml`."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from classifiers.labels import LABELS
from finetune.triage import batches, data, export, recipe
from finetune.triage.model import Loss, TriageModel, base_folder
from finetune.triage.row import Row


def run(recipe_path: Path, resume: bool) -> Path:
    """Train, export, calibrate, evaluate, distil the screen, write the cards; the weights folder.

    `resume` goes on from the checkpoint, which must be of the same data. Raises `StaleCheckpoint`.
    """
    from finetune.screen import train as screen
    from finetune.triage import evaluate

    plan = recipe.read(recipe_path)
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    split = data.build(plan.data, plan.training.seed)
    (plan.run_dir / "data.json").write_text(json.dumps(split.manifest, indent=1))
    with (plan.run_dir / "dev.jsonl").open("w", encoding="utf-8") as out:
        for row in split.dev:
            out.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
    model = fit(plan, split.train, resume)
    weights = export.export(plan, model, split)
    report = plan.run_dir / "report"
    evaluate.run(plan.run_dir / "dev.jsonl", report, weights)
    export.write_card(plan, split, report)
    released = export.release(weights, plan.weights_dir)
    if plan.screen is not None:
        screen.run(plan, split)
    return released


class StaleCheckpoint(ValueError):
    """The checkpoint to resume from is of other data or another recipe."""


def fit(
    plan: recipe.Recipe, rows: list[Row], resume: bool, stop_at: int | None = None, start: Path | None = None
) -> TriageModel:
    """The trained model. A checkpoint every `checkpoint_steps`; `stop_at` ends after that step, for tests of resuming.

    A resumed run sees the same batches and the same dropout as one that was never stopped. `start`: another run's
    checkpoint, to begin with what it had learnt.
    """
    settings = plan.training
    _seed(settings.seed)
    base = base_folder(plan.model.base)
    model = TriageModel(base)
    if start is not None:
        learnt = torch.load(start, weights_only=True)["mean"]
        model.load_state_dict({name.removeprefix("module."): one for name, one in learnt.items() if "." in name})
    ids = batches.encode(rows, batches.framing(base, plan.model.max_tokens))
    lengths = [len(one) for one in ids]
    schedule = [
        batch
        for epoch in range(settings.epochs)
        for batch in batches.order(lengths, settings.batch_size, settings.seed, epoch)
    ]
    optimizer = _optimizer(model, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _slope(step, len(schedule), settings.warmup_share)
    )
    weights = [settings.class_weights.get(label, 1.0) for label in LABELS]
    loss_of = Loss(weights, settings.label_smoothing, settings.category_weight, settings.toxicity_weight)
    checkpoint = plan.run_dir / "checkpoint.pt"
    mean = AveragedModel(model, avg_fn=_running_mean(settings.average))
    parts = {"model": model, "mean": mean, "optimizer": optimizer, "scheduler": scheduler}
    digest = _digest(schedule, ids)
    first = _restore(checkpoint, parts, digest) if resume and checkpoint.exists() else 0
    model.train()
    last = len(schedule) if stop_at is None else min(stop_at, len(schedule))
    with _progress() as bar, (plan.run_dir / "loss.csv").open("a" if first else "w", buffering=1) as log:
        task = bar.add_task("train", total=len(schedule), completed=first, loss=0.0)
        smooth = 0.0
        for step in range(first, last):
            torch.manual_seed(settings.seed * 1_000_003 + step)
            batch = batches.collate([rows[n] for n in schedule[step]], [ids[n] for n in schedule[step]])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(batch.input_ids, batch.attention_mask)
            loss = loss_of(logits, batch.truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            if step >= len(schedule) * settings.warmup_share:
                mean.update_parameters(model)
            smooth = loss.item() if step == first else 0.98 * smooth + 0.02 * loss.item()
            log.write(f"{step},{loss.item():.6f},{time.time():.1f}\n")
            bar.update(task, completed=step + 1, loss=smooth)
            if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == last:
                _save(checkpoint, parts, step + 1, digest)
    model.load_state_dict(mean.module.state_dict())
    return model.eval()


def _running_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential mean that follows the weights closely at first, so that it does not hold short runs back."""

    def update(mean: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        count = float(updates)
        return mean + (1 - min(decay, (1 + count) / (10 + count))) * (new - mean)

    return update


def _optimizer(model: TriageModel, settings: recipe.Training) -> torch.optim.Optimizer:
    heads = [*model.label.parameters(), *model.category.parameters(), *model.toxicity.parameters()]
    groups = [
        {"params": list(model.encoder.parameters()), "lr": settings.learning_rate},
        {"params": heads, "lr": settings.head_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def _slope(step: int, total: int, warmup_share: float) -> float:
    warmup = max(1, int(total * warmup_share))
    return (step + 1) / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))


def _save(path: Path, parts: Mapping[str, Any], step: int, digest: str) -> None:
    partial = path.with_suffix(".partial")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step, "digest": digest}, partial)
    partial.replace(path)


def _restore(path: Path, parts: Mapping[str, Any], digest: str) -> int:
    state = torch.load(path, weights_only=True)
    if state["digest"] != digest:
        raise StaleCheckpoint(f"{path}: was made with other data or another recipe; start without --resume")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def _digest(schedule: list[list[int]], ids: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps([schedule, ids]).encode()).hexdigest()


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _progress() -> Progress:
    loss = TextColumn("loss {task.fields[loss]:.3f}")
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), loss, TimeRemainingColumn())
