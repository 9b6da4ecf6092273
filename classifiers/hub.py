"""Any sequence-classification model of the transformers library as a classifier: a hub id or a folder.

Needs torch and transformers (the extra `local`), imported when the model is loaded. It judges what it reads: a message
is cut to the model's own length after `Reader` has cut it into passages. It knows nothing of toxicity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classifiers.mapping import judgement
from classifiers.message import Judgement, Message


class UnusableModel(ValueError):
    """The model cannot be loaded, or has no such label. The message says which."""


class HubClassifier:
    """`labels` maps the model's labels to ours; see `mapping`."""

    def __init__(self, model: Any, tokenizer: Any, labels: Mapping[str, str], batch: int = 16) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._labels = dict(labels)
        self._batch = batch
        config = model.config
        self._names = [str(config.id2label[at]) for at in range(config.num_labels)]
        unknown = sorted(set(labels) - set(self._names))
        if unknown:
            raise UnusableModel(f"{', '.join(unknown)}: no such label; the model has {', '.join(self._names)}")
        self._several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._longest = min(getattr(config, "max_position_embeddings", 512), tokenizer.model_max_length, 512)

    @classmethod
    def load(cls, model: str, labels: Mapping[str, str], threads: int = 1) -> HubClassifier:
        """Raises `UnusableModel`."""
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ModuleNotFoundError as error:
            raise UnusableModel(f"{error.name} is not installed: pip install 'hhh-gateway[local]'") from None
        torch.set_num_threads(threads)
        try:
            loaded = AutoModelForSequenceClassification.from_pretrained(model)
            tokenizer = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise UnusableModel(f"{model}: {str(error).splitlines()[0]}") from None
        return cls(loaded.eval(), tokenizer, labels)

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order."""
        import torch

        found: list[Judgement] = []
        for start in range(0, len(messages), self._batch):
            texts = [message.text for message in messages[start : start + self._batch]]
            batch = self._tokenizer(texts, truncation=True, max_length=self._longest, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(**batch).logits.float()
            shares = torch.sigmoid(logits) if self._several else torch.softmax(logits, dim=-1)
            for row in shares.tolist():
                named = dict(zip(self._names, row, strict=True))
                found.append(judgement(named, self._labels, self._several, "huggingface"))
        return found
