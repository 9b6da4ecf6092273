"""One example for triage, as training and evaluation see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A text with what is known about it. None: not known, and no loss is taken on it.

    `category` is one of `classifiers.labels.CATEGORIES`; `toxicity` is in 0..1.
    """

    text: str
    label: str | None
    category: str | None
    toxicity: float | None
    source: str
