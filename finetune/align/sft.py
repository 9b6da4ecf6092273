"""`hhh finetune sft` on an existing base: TRL's SFTTrainer, the loss on the assistant's tokens only.

The embedded model is trained from scratch by `finetune.hhh.train`, whose recipes have no `base`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from finetune.align import base, data, recipe, talk
from finetune.align.run import Run
from finetune.hhh.recipe import parse


def run(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train(parse(path, recipe.Sft), resume)


def train(chosen: recipe.Sft, resume: bool = False) -> Path:
    material = data.read(chosen)
    this = Run(chosen, "sft", resume)
    if this.finished:
        return this.folder
    spoken = talk.load(base.folder(chosen.base))
    limit = chosen.training.max_tokens
    train_rows = data.dialogue_rows(spoken, material.train.dialogues, limit)
    if not train_rows:
        raise ValueError(f"{chosen.name}: no dialogues to train on")
    trainer = SFTTrainer(
        model=base.load(chosen.base, chosen.training),
        args=SFTConfig(**arguments(this)),
        train_dataset=Dataset.from_list(train_rows),
        processing_class=spoken.tokenizer,
        peft_config=base.adapter(chosen.lora),
    )
    return this.train(trainer, spoken, material.manifest)


def arguments(this: Run) -> dict[str, Any]:
    return this.arguments(
        max_length=None,  # cut by us, so that a row and its mask stay together
        train_sampling_strategy="group_by_length" if this.recipe.training.group_by_length else "random",
        packing=False,
    )
