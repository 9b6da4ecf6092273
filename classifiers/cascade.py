"""Triage in two tiers: the screen clears what is plainly harmless, the encoder judges the rest.

A screened text carries no toxicity and no category: the screen was trained to let nothing pass that the encoder would
give a high toxicity. Model cards say how often each tier errs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from classifiers import shipped
from classifiers.labels import LABELS
from classifiers.screen import Screen, plain
from classifiers.text import normalise
from classifiers.triage import Judgement, Triage


class Encoder(Protocol):
    def score(self, texts: list[str]) -> list[Judgement]:
        """One judgement per text, in order."""


class Cascade:
    """Both tiers behind one `score`. Without a screen the encoder judges everything."""

    def __init__(self, encoder: Encoder, screen: Screen | None) -> None:
        self.encoder = encoder
        self._screen = screen

    @classmethod
    def load(cls, weights: Path | None = None, threads: int = 1) -> Cascade:
        """From a folder of triage weights (None: the shipped ones) with its screen in `screen/`, if it has one.

        A screen that was distilled from another encoder than the folder's is left out, since its bound would not hold.
        Raises `shipped.CorruptWeights`.
        """
        folder = weights or shipped.TRIAGE
        encoder = Triage.load(folder, threads)
        own = shipped.SCREEN if folder.resolve() == shipped.TRIAGE.resolve() else folder / "screen"
        screen = Screen.load(own) if (own / "manifest.json").is_file() else None
        return cls(encoder, screen if screen is not None and screen.encoder == fingerprint(folder) else None)

    @property
    def screens(self) -> bool:
        """Whether there is a tier 0."""
        return self._screen is not None

    def score(self, texts: list[str]) -> list[Judgement]:
        """One judgement per text, in order; `tier` says who judged."""
        judged = [self.clear(text) for text in texts]
        rest = [at for at, found in enumerate(judged) if found is None]
        for at, found in zip(rest, self.encoder.score([texts[at] for at in rest]), strict=True):
            judged[at] = found
        return [found for found in judged if found is not None]

    def clear(self, text: str) -> Judgement | None:
        """The screen's judgement if it clears the text, in about 0.1 ms; None where the encoder must judge."""
        if self._screen is None or not plain(text):
            return None
        score = self._screen.score([normalise(text)])[0]
        return _harmless(score) if score < self._screen.threshold else None


def fingerprint(folder: Path) -> str:
    """The sha256 of the encoder in a verified folder, as its manifest has it."""
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return str(files.get("model.onnx"))


def _harmless(score: float) -> Judgement:
    scores = {label: score / (len(LABELS) - 1) for label in LABELS[1:]}
    return Judgement("benign", "benign", {LABELS[0]: 1 - score, **scores}, 0.0, tier="screen")
