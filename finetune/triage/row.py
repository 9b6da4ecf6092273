"""One example for triage, as training and evaluation see it."""

from __future__ import annotations

from dataclasses import dataclass

from classifiers.message import Kind, Message


@dataclass(frozen=True, slots=True)
class Row:
    """A text with what is known about it. None: not known, and no loss is taken on it.

    `category` is one of `classifiers.labels.CATEGORIES`; `toxicity` is in 0..1. `before` and `kind` as in a `Message`.
    """

    text: str
    label: str | None
    category: str | None
    toxicity: float | None
    source: str
    before: str = ""
    kind: Kind = "user"

    @property
    def message(self) -> Message:
        return Message(self.text, self.before, self.kind)
