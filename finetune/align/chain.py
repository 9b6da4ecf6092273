"""`hhh finetune chain`: recipes one after another, each from the run before it. Resumable: finished stages are kept.

A chain names its stages and their methods; every stage's own recipe says which run it starts from.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from finetune.hhh.recipe import Part, parse

# Imported when a stage runs: TRL takes seconds to import, and a chain of one stage should not need all of it.
METHODS = {
    "train": "finetune.hhh.train:run",
    "mix": "finetune.hhh.mix:run",
    "sft": "finetune.align.sft:run",
    "penalty": "finetune.align.penalty:run",
    "dpo": "finetune.align.preferences:run_dpo",
    "kto": "finetune.align.preferences:run_kto",
    "rloo": "finetune.align.rl:run_rloo",
    "grpo": "finetune.align.rl:run_grpo",
    "constitution": "finetune.align.constitution:run",
    "sweep": "finetune.align.sweep:run",
    "chain": "finetune.align.chain:run",
}


class Stage(Part):
    method: Literal["train", "mix", "sft", "penalty", "dpo", "kto", "rloo", "grpo"]
    recipe: Path


class Chain(Part):
    stages: tuple[Stage, ...] = Field(min_length=1)


def run(path: Path, resume: bool = False, only: str | None = None) -> Path:
    """The folder of the last stage. Raises `RecipeError`; with `only`, runs that one stage (by its recipe's stem)."""
    chain = parse(path, Chain)
    folder = path.parent
    for stage in chain.stages:
        if only is None or stage.recipe.stem == only:
            began = time.monotonic()
            print(f"{stage.recipe.stem} ({stage.method})", flush=True)
            folder = start(stage.method, stage.recipe, resume)
            print(f"{folder} {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return folder


def start(method: str, recipe: Path, resume: bool = False, **more: Any) -> Path:
    """Run one recipe; with `resume`, go on from its checkpoint, or return at once when it is finished."""
    # Before torch is loaded: threads that spin while they wait make a shared machine ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, name = METHODS[method].split(":")
    begin: Callable[..., Path] = getattr(importlib.import_module(module), name)
    if method != "train" or not resume:
        return begin(recipe, resume, **more)
    folder = _folder(recipe)
    if (folder / "result.json").is_file():
        return folder
    return begin(recipe, (folder / "checkpoint.pt").is_file())


def _folder(path: Path) -> Path:
    from finetune.hhh.recipe import read as read_hhh

    chosen = read_hhh(path)
    return chosen.runs / chosen.name
