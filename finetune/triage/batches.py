"""Tokenised rows in batches of similar length. The order depends on seed and epoch alone, so that a run can resume."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from classifiers.labels import CATEGORIES, LABELS
from classifiers.text import normalise
from finetune.triage.model import IGNORED
from finetune.triage.row import Row

_POOL = 50  # batches sorted together: similar lengths, yet a shuffled order


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids`, `attention_mask`: (rows, tokens) int64. `truth` as `Loss` reads it."""

    input_ids: Tensor
    attention_mask: Tensor
    truth: tuple[Tensor, Tensor, Tensor]


def tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """Text only: `[SEP]` inside a user's text is split into letters, not read as the control token."""
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded.encode_special_tokens = True
    loaded.no_padding()
    loaded.enable_truncation(max_tokens)
    return loaded


def encode(rows: list[Row], split: Tokenizer) -> list[list[int]]:
    return [encoding.ids for encoding in split.encode_batch_fast([normalise(row.text) for row in rows])]


def order(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers per batch."""
    rng = random.Random(f"{seed}:{epoch}")
    numbers = list(range(len(lengths)))
    rng.shuffle(numbers)
    batches: list[list[int]] = []
    for start in range(0, len(numbers), batch_size * _POOL):
        pool = sorted(numbers[start : start + batch_size * _POOL], key=lambda number: lengths[number])
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    rng.shuffle(batches)
    return batches


def collate(rows: list[Row], ids: list[list[int]]) -> Batch:
    longest = max(len(one) for one in ids)
    input_ids = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for number, one in enumerate(ids):
        input_ids[number, : len(one)] = torch.tensor(one)
        mask[number, : len(one)] = 1
    labels = [LABELS.index(row.label) if row.label else IGNORED for row in rows]
    categories = [CATEGORIES.index(row.category) if row.category else IGNORED for row in rows]
    toxicity = [float("nan") if row.toxicity is None else row.toxicity for row in rows]
    return Batch(input_ids, mask, (torch.tensor(labels), torch.tensor(categories), torch.tensor(toxicity)))
