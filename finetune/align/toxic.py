"""A small toxicity classifier in a model's own vocabulary, which reads distributions over tokens as well as tokens.

A text is a matrix of probabilities (tokens, vocabulary), one-hot for a text that is there. So the toxicity of what a
model would say is differentiable, without sampling: the penalty's "soft tokens". Catches insults, slurs and profanity
as people write them in comments; knows nothing of irony, and reads 96 tokens. It is trained here and frozen; judge a
model with another one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from finetune.align.provoking import clean
from finetune.align.recipe import Toxicity

DEV = 0.1
Encode = Callable[[str], list[int]]


class SoftClassifier(nn.Module):
    """Embedding, two convolutions of widths 1 and 3, maximum over the text, one logit."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.1 * torch.randn(vocabulary, width))
        self.single = nn.Conv1d(width, width, 1)
        self.triple = nn.Conv1d(width, width, 3, padding=1)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`embedded` (texts, tokens, width), `mask` (texts, tokens): logits (texts,)."""
        kept = mask[:, None, :].to(embedded.dtype)
        x = embedded.transpose(1, 2) * kept
        found = torch.cat([functional.relu(self.single(x)), functional.relu(self.triple(x))], dim=1) * kept
        logits: torch.Tensor = self.out(found.amax(dim=2)).squeeze(1)
        return logits

    def hard(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of texts that are there: ids (texts, tokens)."""
        return self.forward(functional.embedding(ids, self.embedding), mask)

    def soft(self, probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of distributions (texts, tokens, vocabulary)."""
        return self.forward(probabilities @ self.embedding, mask)


@dataclass(frozen=True, slots=True)
class Trained:
    """A frozen classifier, how it encodes a text, and its area under the curve on rows it did not see."""

    model: SoftClassifier
    encode: Encode
    tokens: int
    auc: float

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> list[float]:
        """The probability, 0..1, that each text is toxic; 0 for an empty one."""
        if not texts:
            return []
        ids, mask = padded([self.encode(text)[: self.tokens] for text in texts])
        found = torch.sigmoid(self.model.hard(ids, mask)) * mask.any(dim=1)
        return [float(score) for score in found]


def train(settings: Toxicity, encode: Encode, vocabulary: int, harmless: Iterable[str] = ()) -> Trained:
    """Train on the recipe's sources, and on `harmless` texts as safe ones. Raises `FileNotFoundError`."""
    draw = random.Random(settings.seed)
    rows = [(clean(text), toxic) for text, toxic in _texts(settings, draw)]
    rows += [(text, 0.0) for text in list(harmless)[: settings.most]]
    examples = [(ids, toxic) for text, toxic in rows if (ids := encode(text)[: settings.tokens])]
    draw.shuffle(examples)
    cut = max(1, int(len(examples) * DEV))
    dev, train_rows = examples[:cut], examples[cut:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = SoftClassifier(vocabulary, settings.width)
        _fit(model, train_rows, settings, draw)
    model.requires_grad_(False).eval()
    trained = Trained(model, encode, settings.tokens, 0.0)
    return Trained(model, encode, settings.tokens, _auc(trained, dev))


def _fit(model: SoftClassifier, rows: list[tuple[list[int], float]], settings: Toxicity, draw: random.Random) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    share = sum(toxic for _, toxic in rows) / len(rows)
    weight = torch.tensor((1 - share) / max(share, 1e-3))
    for _ in range(settings.epochs):
        draw.shuffle(rows)
        batches = _grouped(rows, 64)
        draw.shuffle(batches)
        for batch in batches:
            ids, mask = padded([ids for ids, _ in batch])
            targets = torch.tensor([toxic for _, toxic in batch])
            # Words are dropped, so that no single one decides.
            mask &= torch.rand(mask.shape) > 0.1
            loss = functional.binary_cross_entropy_with_logits(model.hard(ids, mask), targets, pos_weight=weight)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _grouped(rows: list[tuple[list[int], float]], size: int) -> list[list[tuple[list[int], float]]]:
    ordered = sorted(rows, key=lambda row: len(row[0]))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def padded(texts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded with 0, and where there is a token."""
    width = max(1, *map(len, texts)) if texts else 1
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for at, text in enumerate(texts):
        ids[at, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[at, : len(text)] = True
    return ids, mask


def _texts(settings: Toxicity, draw: random.Random) -> list[tuple[str, float]]:
    found = []
    for path in settings.sources:
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        draw.shuffle(rows)
        found += [(row["text"], float(row["label"] == "unsafe")) for row in rows[: settings.most]]
    return found


def _auc(trained: Trained, rows: list[tuple[list[int], float]]) -> float:
    from sklearn.metrics import roc_auc_score

    targets = [toxic for _, toxic in rows]
    if len(set(targets)) < 2:
        return float("nan")
    with torch.inference_mode():
        ids, mask = padded([ids for ids, _ in rows])
        scores: Any = trained.model.hard(ids, mask).tolist()
    return round(float(roc_auc_score(targets, scores)), 4)
