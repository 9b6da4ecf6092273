"""Tokenised rows in batches of similar length. The order depends on seed and epoch alone, so that a run can resume."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from classifiers.framing import Framing, text_tokenizer
from classifiers.labels import CATEGORIES, LABELS
from finetune.triage.model import IGNORED
from finetune.triage.row import Row

MAX_WINDOWS = 64
_POOL = 50  # batches sorted together: similar lengths, yet a shuffled order


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids`, `attention_mask`: (rows, tokens) int64. `truth` as `Loss` reads it."""

    input_ids: Tensor
    attention_mask: Tensor
    truth: tuple[Tensor, Tensor, Tensor]


def framing(folder: Path, max_tokens: int) -> Framing:
    """As the messages are read when served, in windows of `max_tokens`."""
    tokenizer = text_tokenizer(folder / "tokenizer.json")
    vocabulary = tokenizer.get_vocab()
    begin, end = vocabulary["[CLS]"], vocabulary["[SEP]"]
    return Framing(tokenizer, max_tokens, max_tokens * 7 // 8, MAX_WINDOWS, begin, end)


def encode(rows: list[Row], frame: Framing) -> list[list[int]]:
    """One window of each row: the first, which shows what a row is; of a long harmless text any, chosen by its hash."""
    found = []
    for row in rows:
        windows = frame.windows(row.message)[0]
        at = zlib.crc32(row.text.encode("utf-8", "surrogatepass")) % len(windows) if row.label == "benign" else 0
        found.append(windows[at])
    return found


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
