"""python -m finetune.hhh.train --recipe finetune/recipes/embedded/sft.yaml [--resume]

Trains the embedded model: a short phase of plain language modelling, then dialogues with the loss on the assistant's
tokens only. A plain PyTorch loop and not a Trainer, because the schedule must end with a wall-clock budget, and a
resumed run must see the same batches: both are a few lines here. One process, CPU; it does not export.

A run's folder: recipe.json, manifest.json (data), tokenizer/, metrics.jsonl, samples.jsonl, checkpoint.pt, model/ and
result.json at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finetune.hhh import corpus as texts
from finetune.hhh import measure, recipe, tokenizer
from finetune.hhh import model as network
from finetune.hhh.batches import IGNORED, Batch, Epochs
from gateway.upstream.layout import PAD, Layout


@dataclass(slots=True)
class State:
    """Where a run is. With the weights and the optimizer this is all that resuming needs."""

    phase: str = "pretrain"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0
    learned: int = 0
    seconds: float = 0.0
    shortened: float = 0.0  # of the current epoch

    def progress(self, settings: recipe.Training) -> float:
        """0 to 1: steps or minutes, whichever is further."""
        return min(1.0, max(self.step / settings.max_steps, self.seconds / (60 * settings.max_minutes)))


def joined(result: dict[str, Any], start: Path | None, name: str) -> dict[str, Any]:
    """A run's result with that of the run it started from: steps, tokens and seconds of all, and the list of stages."""
    kept = None if start is None else start / "result.json"
    if kept is None or not kept.is_file():
        return result
    before = json.loads(kept.read_text(encoding="utf-8"))
    summed = {key: round(before[key] + result[key], 1) for key in ("step", "tokens", "learned", "seconds")}
    return {**result, **summed, "stages": [*stages(before, kept.parent.name), *stages(result, name)]}


def sources(manifest: dict[str, Any], before: Path | None) -> dict[str, Any]:
    """`manifest` with the sources of the run before it first: what went into that is in the weights too."""
    kept = None if before is None else before / "manifest.json"
    if kept is None or not kept.is_file():
        return manifest
    earlier = json.loads(kept.read_text(encoding="utf-8"))
    known = {(one["source"], one["sha256"]) for one in earlier["sources"]}
    more = [one for one in manifest["sources"] if (one["source"], one["sha256"]) not in known]
    return {**earlier, **manifest, "sources": [*earlier["sources"], *more]}


def stages(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The stages behind a result: as it lists them, or the one run that it is of."""
    own = {"name": name, "method": "train", "steps": result["step"], "seconds": result["seconds"]}
    return list(result.get("stages", [own]))


def rate(state: State, settings: recipe.Training) -> float:
    """Linear warm-up, then a cosine down to `final_rate`."""
    warm = min(1.0, (state.step + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * state.progress(settings)))
    return settings.learning_rate * warm * (settings.final_rate + (1 - settings.final_rate) * cosine)


class Run:
    """One run in its folder: data, model, optimizer and state."""

    def __init__(self, chosen: recipe.Recipe, resume: bool) -> None:
        self.recipe = chosen
        self.settings = chosen.training
        torch.set_num_threads(self.settings.threads)
        self.folder = chosen.runs / chosen.name
        kept = self.folder / "checkpoint.pt"
        if resume and not kept.is_file():
            raise FileNotFoundError(f"{kept}: nothing to resume")
        self.corpus = texts.read(chosen.data, self.settings.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "tokenizer" / "tokenizer.json"
        if not resume:
            if chosen.start is None:
                trained = tokenizer.train(self.corpus.texts(), chosen.model.vocabulary)
                tokenizer.save(trained, file.parent, chosen.model.context)
            else:
                shutil.copytree(chosen.start / "tokenizer", file.parent, dirs_exist_ok=True)
            for name in ("metrics.jsonl", "samples.jsonl", "result.json", "checkpoint.pt"):
                (self.folder / name).unlink(missing_ok=True)
        self.layout = Layout(tokenizer.load(file))
        self.model = network.build(chosen.model, self.layout, self.settings.seed)
        if chosen.start is not None and not resume:
            network.start(self.model, chosen.start / "model")
        self.optimizer = self._optimizer()
        self.state = State()
        if resume:
            self._restore(kept)
        self._write("recipe.json", chosen.model_dump(mode="json"))
        self._write("manifest.json", sources(self.corpus.manifest(), chosen.start))
        self.epochs = Epochs(
            self.layout,
            self.corpus,
            seed=self.settings.seed,
            batch_tokens=self.settings.batch_tokens,
            context=chosen.model.context,
            opening=self.settings.opening_weight,
            times={str(control): often for control, often in self.settings.times.items()},
        )

    def train(self) -> Path:
        """Until the schedule ends. Returns the run's folder."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, refresh_per_second=1) as bar:
            task = bar.add_task("starting", total=1.0)
            evaluated = saved = self.state.seconds
            while self.state.progress(self.settings) < 1:
                for loss in self._epoch():
                    bar.update(task, completed=self.state.progress(self.settings), description=self._line(loss))
                    if self.state.seconds - evaluated > 60 * self.settings.evaluate_minutes:
                        self.evaluate()
                        evaluated = self.state.seconds
                    if self.state.seconds - saved > 60 * self.settings.checkpoint_minutes:
                        self.save()
                        saved = self.state.seconds
        self.save()
        return self.finish()

    def _epoch(self) -> Any:
        """The rest of the current epoch, a step at a time; ends early with the schedule or the phase."""
        state, settings = self.state, self.settings
        began = time.perf_counter()
        if state.phase == "pretrain" and state.progress(settings) >= settings.pretrain_share:
            state.phase, state.epoch, state.batch = "dialogues", 0, 0
        if state.batch == 0:
            last = state.progress(settings) >= 1 - settings.whole_share
            state.shortened = settings.shortened_at_last if last else settings.shortened
        batches = self.epochs.batches(state.phase, state.epoch, state.shortened)
        state.seconds += time.perf_counter() - began
        for examples in batches[state.batch :]:
            began = time.perf_counter()
            batch = self.epochs.collate(examples)
            loss = self._step(batch)
            state.batch += 1
            state.step += 1
            state.tokens += int(batch.ids.ne(self.layout.ids[PAD]).sum())
            state.learned += int(batch.labels.ne(IGNORED).sum())
            state.seconds += time.perf_counter() - began
            self._log({"loss": round(loss, 6), "rate": rate(state, settings)})
            yield loss
            if state.progress(settings) >= 1:
                return
            if state.phase == "pretrain" and state.progress(settings) >= settings.pretrain_share:
                return
        state.epoch, state.batch = state.epoch + 1, 0

    def _step(self, batch: Batch) -> float:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.state, self.settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            total, weight = network.loss(self.model, batch)
        loss = total / max(1.0, weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _optimizer(self) -> torch.optim.Optimizer:
        decayed = [p for p in self.model.parameters() if p.ndim >= 2]
        rest = [p for p in self.model.parameters() if p.ndim < 2]
        decay = self.settings.weight_decay
        groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.95), fused=True)

    def evaluate(self) -> dict[str, Any]:
        """Dev losses into metrics.jsonl, replies into samples.jsonl."""
        context = self.recipe.model.context
        losses = {
            name: round(measure.dev_loss(self.model, self.layout, rows, context), 4)
            for name, rows in (("dev_rows", self.corpus.dev_rows), ("dev_asks", self.corpus.dev_asks))
        }
        self._log({"evaluation": losses})
        with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as out:
            for sample in measure.samples(self.model, self.layout, context):
                out.write(json.dumps({"step": self.state.step, **sample}) + "\n")
        return losses

    def save(self) -> None:
        """A checkpoint that replaces the last one only when it is whole."""
        kept = self.folder / "checkpoint.pt"
        fresh = kept.with_suffix(".part")
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "state": asdict(self.state)},
            fresh,
        )
        fresh.replace(kept)
        self.model.save_pretrained(str(self.folder / "model"))
        shutil.copytree(self.folder / "tokenizer", self.folder / "model", dirs_exist_ok=True)

    def _restore(self, kept: Path) -> None:
        held = torch.load(kept, weights_only=True)
        self.model.load_state_dict(held["model"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.state = State(**held["state"])
        for name in ("metrics.jsonl", "samples.jsonl"):
            self._forget(self.folder / name)

    def _forget(self, path: Path) -> None:
        """Drop what was logged after the checkpoint: it is about to happen again."""
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= self.state.step]
            path.write_text("".join(kept), encoding="utf-8")

    def finish(self) -> Path:
        self.evaluate()
        found = measure.figures(self.model, self.layout, self.corpus, self.recipe.model.context)
        result = {"parameters": network.size(self.model), **asdict(self.state), **found}
        self._write("result.json", joined(result, self.recipe.start, self.folder.name))
        return self.folder

    def _line(self, loss: float) -> str:
        state = self.state
        speed = state.tokens / max(state.seconds, 1e-9)
        return f"{state.phase} epoch {state.epoch} step {state.step} loss {loss:.3f} {speed:,.0f} tokens/s"

    def _log(self, values: dict[str, Any]) -> None:
        state = self.state
        row = {"phase": state.phase, "epoch": state.epoch, "step": state.step, "tokens": state.tokens, **values}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({**row, "seconds": round(state.seconds, 1)}) + "\n")

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def run(recipe_path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, or `ValueError` for malformed data."""
    return Run(recipe.read(recipe_path), resume).train()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded HHH model.")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    options = parser.parse_args()
    print(run(options.recipe, options.resume))


if __name__ == "__main__":
    main()
