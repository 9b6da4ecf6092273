"""Tier 1 of triage: what a message asks for, in a few milliseconds, from a small quantised encoder. Imports no torch.

Catches, in English: requests for harm, hate, crisis and self-harm, attempts to override or extract instructions, orders
planted in tool results, and questions that ask for a personal recommendation in a regulated field. Reads meaning, not
keywords.

Does not catch: what `classifiers.disguise` does not undo, most of what is not English, harm that only a long
conversation shows, false facts. It judges requests, not people. Measured figures are in the model card beside the
weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from numpy.typing import NDArray

from classifiers import shipped
from classifiers.framing import Framing, text_tokenizer
from classifiers.labels import label_of
from classifiers.message import Judgement, Message, merged

Floats = NDArray[numpy.float32]


@dataclass(frozen=True, slots=True)
class _Config:
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    temperature: float
    operating_points: Mapping[str, Mapping[str, Mapping[str, float]]]


class Triage:
    """The classifier. Thread-safe; holds about 40 MB."""

    def __init__(self, session: onnxruntime.InferenceSession, framing: Framing, config: _Config) -> None:
        self._session = session
        self._config = config
        self.framing = framing
        # The categories of each label, as positions in the category head.
        self._refines = {
            label: [at for at, category in enumerate(config.categories) if label_of(category) == label]
            for label in config.labels
        }

    @classmethod
    def load(cls, folder: Path | None = None, threads: int = 1) -> Triage:
        """From a weights folder (None: the shipped one). Raises `shipped.CorruptWeights`."""
        folder = shipped.verified(folder or shipped.TRIAGE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        known: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        framing = Framing(
            text_tokenizer(folder / "tokenizer.json"),
            known["window_tokens"],
            known["stride_tokens"],
            known["max_windows"],
            known["begin_id"],
            known["end_id"],
        )
        config = _Config(
            tuple(known["labels"]), tuple(known["categories"]), known["temperature"], known.get("operating_points", {})
        )
        return cls(session, framing, config)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._config.labels

    @property
    def operating_points(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Per name and label: the thresholds `act` and `doubt` that were chosen on the dev split."""
        return self._config.operating_points

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order. Any string will do, the empty one included."""
        if not messages:
            return []
        windows: list[list[int]] = []
        spans: list[tuple[int, int, bool]] = []
        for message in messages:
            found, complete = self.framing.windows(message)
            spans.append((len(windows), len(windows) + len(found), complete))
            windows += found
        scores, categories, toxicity = self._infer(windows)
        return [
            merged([self._judge(scores[at], categories[at], float(toxicity[at]), complete) for at in range(start, end)])
            for start, end, complete in spans
        ]

    def _infer(self, windows: list[list[int]]) -> tuple[Floats, Floats, Floats]:
        """Label probabilities (n, labels), category logits (n, categories), toxicity (n,).

        One window at a time: the int8 layers scale a batch as a whole, so that a text's scores would depend on what
        happened to arrive with it, by up to 0.28, and batches of 16 save only a quarter of the time.
        """
        config = self._config
        scores = numpy.empty((len(windows), len(config.labels)), numpy.float32)
        categories = numpy.empty((len(windows), len(config.categories)), numpy.float32)
        toxicity = numpy.empty(len(windows), numpy.float32)
        for at, window in enumerate(windows):
            ids = numpy.array([window], numpy.int64)
            label, category, toxic = self._session.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
            scores[at] = softmax(label / config.temperature)[0]
            categories[at] = category[0]
            toxicity[at] = 1 / (1 + numpy.exp(-toxic[0]))
        return scores, categories, toxicity

    def _judge(self, scores: Floats, categories: Floats, toxicity: float, complete: bool) -> Judgement:
        labels = self._config.labels
        # Equal scores go to the risk.
        best = max(range(len(labels)), key=lambda at: (float(scores[at]), at))
        refined = self._refines[labels[best]]
        category = self._config.categories[refined[int(categories[refined].argmax())]]
        named = {label: float(score) for label, score in zip(labels, scores, strict=True)}
        return Judgement(labels[best], category, named, toxicity, complete=complete)


def softmax(logits: Floats) -> Floats:
    """(rows, labels): probabilities."""
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result
