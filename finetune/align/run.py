"""A run of alignment in its folder: config.json, manifest.json, metrics.jsonl, checkpoints/, model/, result.json, card.

What every method shares around its trainer. A run whose result.json is there is finished; `resume` then returns it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PrinterCallback, TrainerCallback

from finetune.align import base, embedded
from finetune.align.recipe import Recipe
from finetune.align.talk import LayoutTalk, Talk

METRICS = "metrics.jsonl"


class Run:
    """`started` is False when the run was finished before and only its folder is wanted."""

    def __init__(self, recipe: Recipe, method: str, resume: bool) -> None:
        self.recipe = recipe
        self.method = method
        self.folder = recipe.folder
        self.finished = resume and (self.folder / "result.json").is_file()
        self.checkpoints = self.folder / "checkpoints"
        self.resume = resume and any(self.checkpoints.glob("checkpoint-*"))
        if self.finished:
            return
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        torch.manual_seed(recipe.training.seed)
        if not resume and is_main():
            for name in ("checkpoints", "model", "adapter"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in (METRICS, "result.json", "export.json"):
                (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write("config.json", {"method": method, **recipe.model_dump(mode="json")})

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Keyword arguments of a TRL config."""
        training = self.recipe.training
        return {
            "output_dir": str(self.checkpoints),
            "seed": training.seed,
            "num_train_epochs": training.epochs,
            "max_steps": training.max_steps,
            "per_device_train_batch_size": training.batch_rows,
            "gradient_accumulation_steps": training.accumulate,
            "learning_rate": training.learning_rate,
            "lr_scheduler_type": training.schedule,
            "warmup_steps": training.warmup_steps,
            "weight_decay": training.weight_decay,
            "max_grad_norm": training.clip,
            "use_cpu": training.device == "cpu" or not torch.cuda.is_available(),
            "bf16": training.bf16,
            "activation_checkpointing": training.recompute,
            "logging_steps": training.log_steps,
            "logging_first_step": True,
            "save_steps": training.checkpoint_steps,
            "save_total_limit": 1,
            "report_to": "none",
            "disable_tqdm": True,
            # Several processes on a CPU (torchrun) talk through gloo.
            **({"ddp_backend": "gloo"} if processes() > 1 and not torch.cuda.is_available() else {}),
            "dataloader_pin_memory": torch.cuda.is_available(),
            **more,
        }

    def train(self, trainer: Any, talk: Talk, manifest: dict[str, Any], **result: Any) -> Path:
        """Train, save and record. Returns the run's folder."""
        self.write("manifest.json", manifest)
        record = Record(self)
        trainer.add_callback(record)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=True if self.resume else None)
        self.save(trainer, talk)
        outcome = {
            "method": self.method,
            "steps": int(trainer.state.global_step),
            "seconds": round(record.seconds, 1),
            "first": record.first,
            "last": record.last,
            **result,
        }
        if is_main():
            if isinstance(talk, LayoutTalk):
                outcome = embedded.carry(self.folder, Path(self.recipe.base), manifest, outcome)
            self.write("result.json", outcome)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            (self.folder / "CARD.md").write_text(card(self.recipe, self.method, outcome), encoding="utf-8")
        trainer.accelerator.wait_for_everyone()
        return self.folder

    def save(self, trainer: Any, talk: Talk) -> None:
        """model/ is a whole model, unless an adapter was trained and is not to be merged: then adapter/ is all."""
        lora, target = self.recipe.lora, self.folder / "model"
        if lora is None:
            trainer.save_model(str(target))
        else:
            trainer.save_model(str(self.folder / "adapter"))
            if lora.merge and is_main():
                whole = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
                whole.save_pretrained(str(target))
        if is_main() and target.is_dir():
            (target / "training_args.bin").unlink(missing_ok=True)
            if isinstance(talk, LayoutTalk):
                for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                    source = Path(base.folder(self.recipe.base)) / name
                    if source.is_file():
                        shutil.copyfile(source, target / name)
            else:
                talk.tokenizer.save_pretrained(str(target))

    def write(self, name: str, value: Any) -> None:
        if is_main():
            (self.folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


class Record(TrainerCallback):  # type: ignore[misc]
    """Progress on the terminal, every log into metrics.jsonl, and an end when the minutes are used up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.seconds = self._before = 0.0
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()
        path = self.run.folder / METRICS
        if path.is_file() and state.is_world_process_zero:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            kept = [row for row in rows if row["step"] <= state.global_step]  # the rest is about to happen again
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            self._before = kept[-1]["seconds"] if kept else 0.0
            self.first = kept[0] if kept else {}
        if state.is_world_process_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, refresh_per_second=1)
            self._bar.start()
            self._task = self._bar.add_task(self.run.method, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.seconds = self._before + time.monotonic() - self._began
        minutes = self.run.recipe.training.max_minutes
        if minutes is not None and self.seconds > 60 * minutes:
            control.should_training_stop = True
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, description=self._line(state.global_step))
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or not state.is_world_process_zero:
            return
        values = {key: round(float(value), 6) for key, value in logs.items() if isinstance(value, int | float)}
        row = {"step": state.global_step, "seconds": round(self.seconds, 1), **values}
        with (self.run.folder / METRICS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        if "train_runtime" not in logs:
            self.first = self.first or row
            self.last = row

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, step: int) -> str:
        told = [f"{key} {self.last[key]:.3f}" for key in ("loss", "reward", "rewards/margins") if key in self.last]
        return " ".join([self.run.method, f"step {step}", *told])


def is_main() -> bool:
    """Whether this process writes files; torchrun starts several."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def card(recipe: Recipe, method: str, outcome: dict[str, Any]) -> str:
    """The beginning of a model card: what was done. What came of it is for the evaluation to add."""
    figures = "\n".join(
        f"| {key} | {outcome['first'][key]:.4g} | {outcome['last'][key]:.4g} |"
        for key in outcome["first"]
        if key in outcome["last"] and key not in ("step", "seconds", "epoch")
    )
    how = f"LoRA, rank {recipe.lora.rank}" if recipe.lora else "all weights"
    return (
        f"# {recipe.name}\n\n`{method}` from `{recipe.base}`, {how}, seed {recipe.training.seed}: "
        f"{outcome['steps']:,} steps in {outcome['seconds'] / 60:.1f} minutes. Settings are in config.json, data with "
        "sha256 in manifest.json.\n\nNot evaluated yet: run `hhh eval all` on this folder.\n\n"
        f"| logged | first | last |\n|---|---|---|\n{figures}\n"
    )
