"""The screen as torch trains it, and as `classifiers.screen` serves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn


class ScreenModel(nn.Module):
    """Embeddings, one layer over three neighbours, its highest and mean, one logit."""

    def __init__(self, pieces: Tensor, filters: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding.from_pretrained(pieces, freeze=False, sparse=True)  # type: ignore[no-untyped-call]
        self.near = nn.Conv1d(pieces.shape[1], filters, 3, padding=1)
        self.out = nn.Linear(2 * filters, 1)
        self.drop = nn.Dropout(0.2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(texts,): logits of (texts, pieces) ids, of which `mask` says which are there."""
        rows = self.pieces(ids) * mask[..., None]
        found = torch.relu(self.near(rows.transpose(1, 2))) * mask[:, None]
        mean = found.sum(2) / mask.sum(1, keepdim=True)
        logits: Tensor = self.out(self.drop(torch.cat([found.amax(2), mean], 1)))[:, 0]
        return logits


def start(folder: Path, size: int) -> Tensor:
    """(vocabulary, size): an encoder's word embeddings on their main axes, at unit variance."""
    stored = load_file(folder / "model.safetensors")
    words = next(value for name, value in stored.items() if name.endswith("word_embeddings.weight")).float()
    words = words - words.mean(0)
    found: Tensor = words @ torch.linalg.eigh(words.T @ words)[1][:, -size:]
    return found.div(found.std())


def collate(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(texts, pieces) ids, and the mask of those that are there."""
    longest = max(map(len, texts))
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros(len(texts), longest)
    for at, text in enumerate(texts):
        ids[at, : len(text)] = torch.tensor(text)
        mask[at, : len(text)] = 1
    return ids, mask


def pack(model: ScreenModel, known: NDArray[numpy.bool_]) -> dict[str, NDArray[Any]]:
    """The arrays of `weights.npz`: embeddings as int8 with a scale per axis, the rest as float16."""
    pieces = model.pieces.weight.detach().numpy()
    scale = numpy.maximum(numpy.abs(pieces[known]).max(axis=0), 1e-6) / 127
    size, filters = pieces.shape[1], model.near.out_channels
    # (filters, size, 3) to (3 * size, filters), as the three neighbours lie side by side when served.
    kernel = model.near.weight.detach().numpy().transpose(2, 1, 0).reshape(3 * size, filters)
    assert model.near.bias is not None
    return {
        "pieces": numpy.clip(numpy.round(pieces / scale), -127, 127).astype(numpy.int8),
        "known": numpy.packbits(known),
        "scale": scale.astype(numpy.float32),
        "kernel": kernel.astype(numpy.float16),
        "shift": model.near.bias.detach().numpy().astype(numpy.float16),
        "out": model.out.weight.detach().numpy()[0].astype(numpy.float16),
    }
