"""WEAT's effect size on a model's input embeddings, differentiable (Caliskan et al. 2017, Science 356:183).

d = (mean over X of s - mean over Y of s) / std over X and Y of s, with s(w) the mean cosine to A less that to B. A word
of several tokens is the mean of them. d is about -2 to 2, 0 where neither group is nearer to A than the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional

Words = tuple[tuple[int, ...], ...]
Test = tuple[Words, Words, Words, Words]


def tests(path: Path, names: Sequence[Sequence[str]], encode: Callable[[str], list[int]]) -> list[Test]:
    """Word lists as token ids. Raises `ValueError` for a list that the file has not."""
    lists = json.loads(path.read_text(encoding="utf-8"))
    for name in {name for test in names for name in test}:
        if name not in lists:
            raise ValueError(f"{path}: no list {name!r}")

    def words(name: str) -> Words:
        return tuple(tuple(encode(word)) for word in lists[name])

    return [(words(x), words(y), words(a), words(b)) for x, y, a, b in names]


def effect(embeddings: torch.Tensor, test: Test) -> torch.Tensor:
    """d of one test; `embeddings` (vocabulary, width). 0 where all words associate alike."""
    x, y, a, b = (functional.normalize(_vectors(embeddings, words), dim=1) for words in test)
    association = [(group @ a.T).mean(dim=1) - (group @ b.T).mean(dim=1) for group in (x, y)]
    both = torch.cat(association)
    return (association[0].mean() - association[1].mean()) / (both.std() + 1e-8)


def effects(embeddings: torch.Tensor, found: Sequence[Test]) -> torch.Tensor:
    """d of each test, (tests,)."""
    return torch.stack([effect(embeddings.float(), test) for test in found])


def penalty(embeddings: torch.Tensor, found: Sequence[Test], margin: float) -> torch.Tensor:
    """Mean over the tests of max(0, |d| - margin)^2: within the margin there is no gradient, so d is not overshot."""
    return functional.relu(effects(embeddings, found).abs() - margin).square().mean()


def _vectors(embeddings: torch.Tensor, words: Words) -> torch.Tensor:
    return torch.stack([embeddings[list(ids)].mean(dim=0) for ids in words])
