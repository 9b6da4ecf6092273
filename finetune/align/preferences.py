"""`hhh finetune dpo` and `hhh finetune kto`: learning from what people preferred, with TRL's trainers.

DPO (Rafailov et al. 2023) with an SFT term on the chosen reply: -log sigmoid(beta * (r_chosen - r_rejected)) + w * NLL,
r the log-ratio to the base. Without the SFT term a small model learns to say neither. KTO (Ethayarajh et al. 2024)
takes single replies that somebody called good or bad.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from classifiers.refusal import RefusalDetector
from finetune.align import base, data, recipe, talk
from finetune.align.rows import Judged
from finetune.align.run import Run
from finetune.hhh.recipe import parse


class TokenPairs(DPOTrainer):  # type: ignore[misc]
    """Takes pairs as ids: a chat template would read control tokens out of a user's text."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class TokenReplies(KTOTrainer):  # type: ignore[misc]
    """The same for single replies; `KL_completion_ids` are another row's, as KTO's estimate of the divergence wants."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        if not self.calculate_KL:
            return dataset
        replies = dataset["completion_ids"]
        return dataset.add_column("KL_completion_ids", [replies[-1], *list(replies)[:-1]])


def run_dpo(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train_dpo(parse(path, recipe.Dpo), resume)


def train_dpo(chosen: recipe.Dpo, resume: bool = False) -> Path:
    material = data.read(chosen)
    this = Run(chosen, "dpo", resume)
    if this.finished:
        return this.folder
    spoken = talk.load(base.folder(chosen.base))
    refuses, limit = RefusalDetector.load().refuses, chosen.training.max_tokens
    pairs = data.pair_rows(spoken, material.train.pairs, limit, refuses)
    if not pairs:
        raise ValueError(f"{chosen.name}: no pairs to train on")
    trainer = TokenPairs(
        model=base.load(chosen.base, chosen.training),
        args=DPOConfig(
            **this.arguments(
                beta=chosen.beta,
                loss_type=list(chosen.losses),
                loss_weights=list(chosen.weights),
                max_length=None,
            )
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=spoken.tokenizer,
        peft_config=base.adapter(chosen.lora),
    )
    return this.train(trainer, spoken, material.manifest)


def run_kto(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train_kto(parse(path, recipe.Kto), resume)


def train_kto(chosen: recipe.Kto, resume: bool = False) -> Path:
    """From judged replies, and from pairs taken apart."""
    material = data.read(chosen)
    this = Run(chosen, "kto", resume)
    if this.finished:
        return this.folder
    spoken = talk.load(base.folder(chosen.base))
    refuses, limit = RefusalDetector.load().refuses, chosen.training.max_tokens
    judged = [*material.train.judged]
    for pair in material.train.pairs:
        control = data.control_of(pair, refuses)
        for reply, good in ((pair.chosen, True), (pair.rejected, False)):
            judged.append(Judged(pair.id, pair.prompt, reply, good, pair.category, control))
    found = data.judged_rows(spoken, judged, limit, refuses)
    if len({row["label"] for row in found}) < 2:
        raise ValueError(f"{chosen.name}: KTO needs both good and bad replies")
    trainer = TokenReplies(
        model=base.load(chosen.base, chosen.training),
        args=KTOConfig(
            **this.arguments(
                beta=chosen.beta,
                desirable_weight=chosen.desirable,
                undesirable_weight=chosen.undesirable,
                max_length=None,
            )
        ),
        train_dataset=Dataset.from_list(found),
        processing_class=spoken.tokenizer,
        peft_config=base.adapter(chosen.lora),
    )
    return this.train(trainer, spoken, material.manifest)
