"""Triage: what a user's text asks for, in a few milliseconds, from a small quantised encoder. Imports no torch.

Catches, in English: requests for harm, hate, crisis and self-harm, attempts to override or extract instructions, and
questions that ask for a personal recommendation in a regulated field. Reads meaning, not keywords.

Does not catch: what is disguised (ciphers, homoglyphs, leetspeak, spelt-out words), most of what is not English, harm
that only the conversation shows, orders hidden in documents that do not read as orders to a model, and false facts. It
judges requests, not people. Measured figures are in the model card beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifiers import shipped
from classifiers.labels import label_of
from classifiers.text import normalise

Floats = NDArray[numpy.float32]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What triage found in a text.

    `scores`: a calibrated probability per label; they sum to 1 where the text fits one window, and are the highest of
    any window (benign: the lowest) where it does not. `category`: the likeliest one of `label`. `toxicity`: 0..1, of
    the text's own tone. `complete`: False when the text was too long to read whole.
    """

    label: str
    category: str
    scores: Mapping[str, float]
    toxicity: float
    tier: str = "encoder"
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Config:
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    temperature: float
    window_tokens: int
    stride_tokens: int
    max_windows: int
    begin: int
    end: int

    @classmethod
    def read(cls, path: Path) -> _Config:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            labels=tuple(known["labels"]),
            categories=tuple(known["categories"]),
            temperature=known["temperature"],
            window_tokens=known["window_tokens"],
            stride_tokens=known["stride_tokens"],
            max_windows=known["max_windows"],
            begin=known["begin_id"],
            end=known["end_id"],
        )


class Triage:
    """The classifier. Thread-safe; holds about 40 MB."""

    def __init__(self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, config: _Config) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._config = config
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
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Otherwise "[SEP]" typed by a user would reach the model as the control token.
        tokenizer.encode_special_tokens = True
        return cls(session, tokenizer, _Config.read(folder / "config.json"))

    @property
    def labels(self) -> tuple[str, ...]:
        return self._config.labels

    def score(self, texts: list[str]) -> list[Judgement]:
        """One judgement per text, in order. Any string will do, the empty one included."""
        if not texts:
            return []
        windows: list[list[int]] = []
        spans: list[tuple[int, int, bool]] = []
        for text in texts:
            found, complete = self._windows(text)
            spans.append((len(windows), len(windows) + len(found), complete))
            windows += found
        scores, categories, toxicity = self._infer(windows)
        return [
            self._judge(scores[start:end], categories[start:end], toxicity[start:end], complete)
            for start, end, complete in spans
        ]

    def _windows(self, text: str) -> tuple[list[list[int]], bool]:
        """Token ids of overlapping windows. Past the cap, half of them from the beginning and half from the end."""
        config = self._config
        text = normalise(text)
        # The middle of what could not fit at twelve characters a token is not even tokenised.
        limit = config.max_windows * config.stride_tokens * 6
        whole = len(text) <= 2 * limit
        if not whole:
            text = f"{text[:limit]} {text[-limit:]}"
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        room = config.window_tokens - 2
        stride = config.stride_tokens - 2
        starts = list(range(0, max(1, len(ids) - (room - stride)), stride))
        complete = whole and len(starts) <= config.max_windows
        if len(starts) > config.max_windows:
            half = config.max_windows // 2
            # The last windows are counted from the end, so that the text's last token is always read.
            ending = [max(0, len(ids) - room - stride * back) for back in reversed(range(config.max_windows - half))]
            starts = starts[:half] + ending
        return [[config.begin, *ids[start : start + room], config.end] for start in starts], complete

    def _infer(self, windows: list[list[int]]) -> tuple[Floats, Floats, Floats]:
        """Label probabilities (n, labels), category logits (n, categories), toxicity (n,)."""
        config = self._config
        scores = numpy.empty((len(windows), len(config.labels)), numpy.float32)
        categories = numpy.empty((len(windows), len(config.categories)), numpy.float32)
        toxicity = numpy.empty(len(windows), numpy.float32)
        for rows in _batches(windows):
            longest = max(len(windows[row]) for row in rows)
            ids = numpy.zeros((len(rows), longest), numpy.int64)
            mask = numpy.zeros((len(rows), longest), numpy.int64)
            for at, row in enumerate(rows):
                ids[at, : len(windows[row])] = windows[row]
                mask[at, : len(windows[row])] = 1
            label, category, toxic = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
            scores[rows] = _softmax(label / config.temperature)
            categories[rows] = category
            toxicity[rows] = 1 / (1 + numpy.exp(-toxic))
        return scores, categories, toxicity

    def _judge(self, scores: Floats, categories: Floats, toxicity: Floats, complete: bool) -> Judgement:
        """Over a text's windows: each risk where it is highest, so that a harmless rest does not dilute it."""
        labels = self._config.labels
        worst = scores.max(axis=0)
        worst[0] = scores[:, 0].min()
        # Equal scores go to the risk.
        best = max(range(len(labels)), key=lambda at: (float(worst[at]), at))
        refined = self._refines[labels[best]]
        window = int(scores[:, best].argmax())
        category = self._config.categories[refined[int(categories[window, refined].argmax())]]
        named = {label: float(score) for label, score in zip(labels, worst, strict=True)}
        return Judgement(labels[best], category, named, float(toxicity.max()), complete=complete)


def _batches(windows: list[list[int]], padding: float = 0.25, most: int = 32) -> Iterator[list[int]]:
    """Rows by length, in batches of at most `most` in which at most that share of the tokens is padding."""
    order = sorted(range(len(windows)), key=lambda row: len(windows[row]))
    batch: list[int] = []
    tokens = 0
    for row in order:
        length = len(windows[row])
        if batch and (len(batch) == most or 1 - (tokens + length) / (length * (len(batch) + 1)) > padding):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += length
    yield batch


def _softmax(logits: Floats) -> Floats:
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result
