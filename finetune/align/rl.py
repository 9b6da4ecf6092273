"""`hhh finetune rloo` and `hhh finetune grpo`: reward instead of examples, with TRL's successors of PPO.

RLOO (Ahmadian et al. 2024) compares each of k replies to a prompt with the mean reward of the others; GRPO (Shao et al.
2024) with the mean of all, in units of their deviation. Both hold on to the base by beta * KL. With `lagrangian` the
weight of toxicity is learned (Dai et al. 2023, Safe RLHF): lambda <- max(0, lambda + rate * (E[tox] - limit)).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from classifiers.refusal import RefusalDetector
from finetune.align import base, data, recipe, reward, talk, toxic
from finetune.align.data import MISROUTED, Material
from finetune.align.run import METRICS, Run
from finetune.align.talk import Talk
from finetune.hhh.recipe import parse

TOXICITY = 0  # its place among the reward functions
MULTIPLIER = "lagrangian/multiplier"


class TokenPrompts:
    """Prompts of a dataset are row names; their ids are ours, since a template would read control tokens in text."""

    known: dict[str, list[int]]

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.known[name] for name in prompts], None, {}


class Rloo(TokenPrompts, RLOOTrainer):  # type: ignore[misc]
    pass


class Grpo(TokenPrompts, GRPOTrainer):  # type: ignore[misc]
    pass


class Multiplier(TrainerCallback):  # type: ignore[misc]
    """The Lagrange multiplier of toxicity: one step up or down per log, in the trainer's own reward weights.

    A resumed run finds it in the run's `metrics`.
    """

    def __init__(self, settings: recipe.Lagrangian, metrics: Path) -> None:
        self.settings = settings
        self.metrics = metrics
        self.value = settings.start
        self.trainer: Any = None

    def attach(self, trainer: Any) -> None:
        self.trainer = trainer
        self._set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step and self.metrics.is_file():
            rows = map(json.loads, self.metrics.read_text(encoding="utf-8").splitlines())
            known = [row[MULTIPLIER] for row in rows if row["step"] <= state.global_step and MULTIPLIER in row]
            self.value = known[-1] if known else self.value
            self._set()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "rewards/toxicity/mean" not in logs:
            return
        cost = -float(logs["rewards/toxicity/mean"])
        self.value = step(self.value, cost, self.settings)
        logs[MULTIPLIER] = self.value
        self._set()

    def _set(self) -> None:
        self.trainer.reward_weights[TOXICITY] = self.value


def step(value: float, cost: float, settings: recipe.Lagrangian) -> float:
    """The multiplier after a batch whose mean toxicity was `cost`."""
    return min(settings.most, max(0.0, value + settings.rate * (cost - settings.limit)))


def run_rloo(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train(parse(path, recipe.Rl), "rloo", resume)


def run_grpo(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train(parse(path, recipe.Rl), "grpo", resume)


def train(chosen: recipe.Rl, method: str, resume: bool = False) -> Path:
    material = data.read(chosen)
    this = Run(chosen, method, resume)
    if this.finished:
        return this.folder
    spoken = talk.load(base.folder(chosen.base))
    model = base.load(chosen.base, chosen.training)
    harmless = dict.fromkeys(row.answer for row in material.train.dialogues)
    classifier = toxic.train(chosen.classifier, spoken.plain, model.config.vocab_size, harmless)
    rows, known = prompts(spoken, material, chosen.training.max_tokens - chosen.reply_tokens, chosen.training.seed)
    if not rows:
        raise ValueError(f"{chosen.name}: no prompts to train on")
    judge = reward.Judge(RefusalDetector.load(), classifier)
    kinds: dict[str, tuple[Any, Any]] = {"rloo": (Rloo, RLOOConfig), "grpo": (Grpo, GRPOConfig)}
    trainer_kind, config_kind = kinds[method]
    multiplier = Multiplier(chosen.lagrangian, this.folder / METRICS) if chosen.lagrangian else None
    trainer = trainer_kind(
        model=model,
        reward_funcs=reward.functions(judge),
        args=config_kind(
            **this.arguments(
                num_generations=chosen.generations,
                max_completion_length=chosen.reply_tokens,
                temperature=chosen.temperature,
                beta=chosen.beta,
                reward_weights=[chosen.toxicity, chosen.refusal, chosen.helpfulness],
                generation_kwargs={"eos_token_id": spoken.end},
            )
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=spoken.tokenizer,
        peft_config=base.adapter(chosen.lora),
        callbacks=[multiplier] if multiplier else None,
    )
    trainer.known = known
    if multiplier:
        multiplier.attach(trainer)
    torch.manual_seed(chosen.training.seed)
    folder = this.train(trainer, spoken, material.manifest, classifier_auc=classifier.auc)
    return folder


def prompts(
    spoken: Talk, material: Material, limit: int, seed: int
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """Rows {prompt: a name, label, reference, facts}, and the ids of each name. Asked both with and without a route."""
    draw = random.Random(f"{seed}:prompts")
    rows: list[dict[str, Any]] = []
    known: dict[str, list[int]] = {}
    detector = RefusalDetector.load()

    def add(messages: Sequence[dict[str, str]], control: str, label: str, reference: str, facts: Sequence[str]) -> None:
        ids = data.prompted(spoken, messages, control, 2 * limit)
        if ids is not None:
            name = f"prompt-{len(known)}"
            known[name] = ids
            rows.append({"prompt": name, "label": label, "reference": reference, "facts": list(facts)})

    for row in material.train.dialogues:
        control = data.control_of(row, detector.refuses)
        label = "refuse" if control == "refuse" else "answer"
        asked = "comply" if draw.random() < MISROUTED else control
        add(row.prompt, asked, label, row.answer if label == "answer" else "", row.facts)
    for pair in material.train.pairs:
        control = data.control_of(pair, detector.refuses)
        label = "refuse" if control == "refuse" else "answer"
        add(pair.prompt, control, label, pair.chosen if label == "answer" else "", ())
    for exchange in material.exchanges:
        asked = "refuse" if exchange.harmful and draw.random() >= MISROUTED else "comply"
        said = [{"role": "user", "content": exchange.prompt}]
        add(said, asked, "refuse" if exchange.harmful else "any", "", ())
    draw.shuffle(rows)
    return rows, known
