"""`hhh finetune penalty`: L = L_task + lambda_t * L_tox + lambda_b * L_bias + lambda_u * L_ul.

L_task  cross-entropy of the answers' tokens.
L_tox   expected toxicity of what the model would say: at every position of an answer its distribution over the next
        token, as one row of a soft text, goes through a frozen classifier. Soft tokens, because the gradient is exact
        and of low variance and needs no further pass: the logits are there already. Straight-through would be biased
        as well as noisy; a score function needs sampling, which is what RLOO does (`rl.py`). What it does not see is
        where the model's own words would lead it: the context is the written one. So known-bad continuations are
        contexts too.
L_bias  WEAT effect sizes on the input embeddings (`weat.py`).
L_ul    unlikelihood of known-bad continuations, -log(1 - p) (Welleck et al. 2019).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from trl import SFTConfig, SFTTrainer

from classifiers.refusal import RefusalDetector
from finetune.align import base, data, recipe, talk, toxic, weat
from finetune.align.data import Material
from finetune.align.run import Run
from finetune.align.sft import arguments
from finetune.align.talk import LayoutTalk, Talk
from finetune.hhh.recipe import parse

IGNORED = -100


def expected_toxicity(
    logits: torch.Tensor, learned: torch.Tensor, classifier: toxic.SoftClassifier, most: int
) -> torch.Tensor:
    """Mean probability of being toxic, 0..1, over rows.

    `logits` (rows, tokens, vocabulary) of the next tokens, `learned` (rows, tokens) where they belong to an answer. The
    first `most` of each row are read.
    """
    rows = learned.any(dim=1).nonzero().flatten()
    if not len(rows):
        return logits.sum() * 0.0
    soft = [torch.softmax(logits[row][learned[row]][:most].float(), dim=-1) @ classifier.embedding for row in rows]
    embedded = torch.nn.utils.rnn.pad_sequence(soft, batch_first=True)
    lengths = torch.tensor([len(text) for text in soft], device=logits.device)
    mask = torch.arange(embedded.shape[1], device=logits.device)[None] < lengths[:, None]
    return torch.sigmoid(classifier(embedded, mask)).mean()


def unlikelihood(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - p(token)) over the targets that are not `IGNORED`; 0 when there are none."""
    kept = targets != IGNORED
    if not kept.any():
        return logits.sum() * 0.0
    said = functional.cross_entropy(logits[kept].float(), targets[kept], reduction="none")
    return -torch.log1p(-torch.exp(-said).clamp(max=1 - 1e-6)).mean()


class PenaltyTrainer(SFTTrainer):  # type: ignore[misc]
    """The sum of the terms, in `compute_loss`. Terms are logged by name, as means since the last log."""

    def __init__(
        self, *, settings: recipe.Penalty, classifier: toxic.SoftClassifier, found: Sequence[weat.Test], **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.settings = settings
        self.classifier = classifier.to(self.accelerator.device)
        self.found = found
        self._terms: dict[str, list[float]] = {}

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        settings = self.settings
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        logits, labels = outputs.logits[:, :-1], inputs["labels"][:, 1:]
        bad = inputs["bad"][:, None].bool()
        good = labels.masked_fill(bad, IGNORED)
        total = functional.cross_entropy(logits[good != IGNORED].float(), good[good != IGNORED], reduction="sum")
        # A sum over the tokens of all batches of a step, as SFTTrainer has it: accumulating changes nothing.
        count = num_items_in_batch if num_items_in_batch is not None else (good != IGNORED).sum()
        loss = task = total / torch.as_tensor(count).clamp(min=1)
        terms = {"task": task * self.current_gradient_accumulation_steps}
        if settings.toxicity:
            terms["toxicity"] = expected_toxicity(
                logits, labels != IGNORED, self.classifier, settings.classifier.tokens
            )
        if settings.bias:
            weights = self.accelerator.unwrap_model(model).get_input_embeddings().weight
            terms["bias"] = weat.penalty(weights, self.found, settings.bias_margin)
        if settings.unlikelihood:
            terms["unlikelihood"] = unlikelihood(logits, labels.masked_fill(~bad, IGNORED))
        for name, term in terms.items():
            self._terms.setdefault(name, []).append(float(term.detach()))
            if name != "task":
                loss = loss + getattr(settings, name) * term / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        means = {f"loss/{name}": sum(values) / len(values) for name, values in self._terms.items() if values}
        self._terms = {}
        super().log({**logs, **means}, start_time)


class Collator:
    """Rows of `input_ids`, `labels` and `bad`, padded on the right."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def filled(key: str, value: int) -> torch.Tensor:
            return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

        ids = filled("input_ids", self.pad)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": (torch.arange(width)[None] < lengths[:, None]).long(),
            "labels": filled("labels", IGNORED),
            "bad": torch.tensor([int(row["bad"]) for row in rows]),
        }


def run(path: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    return train(parse(path, recipe.Penalty), resume)


def train(chosen: recipe.Penalty, resume: bool = False) -> Path:
    material = data.read(chosen)
    this = Run(chosen, "penalty", resume)
    if this.finished:
        return this.folder
    if chosen.bias and chosen.lora:
        raise ValueError(
            f"{chosen.name}: bias - an adapter leaves the embeddings as they are; set it to 0 or train all"
        )
    spoken = talk.load(base.folder(chosen.base))
    model = base.load(chosen.base, chosen.training)
    found = weat.tests(chosen.weat, chosen.tests, spoken.plain) if chosen.bias else []
    harmless = [row.answer for row in material.train.dialogues]
    classifier = toxic.train(chosen.classifier, spoken.plain, model.config.vocab_size, dict.fromkeys(harmless))
    before = weat.effects(model.get_input_embeddings().weight.detach(), found).tolist() if found else []
    trainer = PenaltyTrainer(
        settings=chosen,
        classifier=classifier.model,
        found=found,
        model=model,
        args=SFTConfig(**arguments(this), remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows(spoken, material, chosen.training.max_tokens, chosen.training.seed)),
        data_collator=Collator(spoken.tokenizer.pad_token_id),
        processing_class=spoken.tokenizer,
        peft_config=base.adapter(chosen.lora),
    )
    folder = this.train(trainer, spoken, material.manifest, classifier_auc=classifier.auc, weat_before=before)
    return folder


def rows(spoken: Talk, material: Material, limit: int, seed: int) -> list[dict[str, Any]]:
    """Dialogues and chosen replies to learn from; rejected replies and provoking exchanges as known-bad.

    Raises `ValueError` without anything to learn from.
    """
    detector = RefusalDetector.load()
    draw = random.Random(seed)
    changed = draw if isinstance(spoken, LayoutTalk) else None
    good = [{**row, "bad": False} for row in data.dialogue_rows(spoken, material.train.dialogues, limit, changed)]
    bad = []
    for pair in material.train.pairs:
        control = data.control_of(pair, detector.refuses)
        good.append(_row(spoken, [*pair.prompt, _said(pair.chosen)], control, limit, bad=False))
        if pair.why in ("", "unsafe", "rude"):
            bad.append(_row(spoken, [*pair.prompt, _said(pair.rejected)], control, limit, bad=True))
    for exchange in material.exchanges:
        said = [{"role": "user", "content": exchange.prompt}, _said(exchange.reply)]
        control = "refuse" if exchange.harmful and draw.random() >= data.MISROUTED else "comply"
        bad.append(_row(spoken, said, control, limit, bad=True))
    if not good:
        raise ValueError("penalty: no dialogues and no pairs to learn the task from")
    draw.shuffle(bad)
    made = [row for row in (*good, *bad[: len(good)]) if any(label != IGNORED for label in row["labels"])]
    draw.shuffle(made)
    return made


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _row(spoken: Talk, messages: list[dict[str, str]], control: str, limit: int, *, bad: bool) -> dict[str, Any]:
    ids, learned = talk.dialogue(spoken, messages, control, limit)
    labels = [token if keep else IGNORED for token, keep in zip(ids, learned, strict=True)]
    return {"input_ids": ids, "labels": labels, "bad": bad}
