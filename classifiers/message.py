"""What a classifier is asked, and what it answers: the protocol that ours and every other classifier speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["user", "tool", "reply"]


@dataclass(frozen=True, slots=True)
class Message:
    """A text to judge. `before`: the user's earlier turns, as far as they help to understand a short one.

    `kind`: who it comes from. What a tool returned asks for nothing, so a plain order in it is an injection. A `reply`
    is the model's.
    """

    text: str
    before: str = ""
    kind: Kind = "user"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What triage found in a message.

    `scores`: a calibrated probability per label; they sum to 1 where one reading of one passage was judged, and are the
    highest of any (benign: the lowest) where there were more. `category`: the likeliest one of `label`. `toxicity`:
    0..1, of the text's own tone. `tier`: who judged. `complete`: False when the text was too long to read whole.
    `language`: ISO 639-1 of the text, "en" too where it is too short or too mixed to tell.
    """

    label: str
    category: str
    scores: Mapping[str, float]
    toxicity: float
    tier: str = "encoder"
    complete: bool = True
    language: str = "en"


class Classifier(Protocol):
    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order. Blocks."""


def merged(judgements: Sequence[Judgement]) -> Judgement:
    """One judgement of several over parts or readings of a message: each risk where it is highest.

    So a harmless rest does not dilute a risk. At least one judgement; labels in the order of the first's scores.
    """
    if len(judgements) == 1:
        return judgements[0]
    labels = list(judgements[0].scores)
    benign, *risks = labels
    scores = {benign: min(one.scores[benign] for one in judgements)}
    scores |= {label: max(one.scores[label] for one in judgements) for label in risks}
    # Equal scores go to the risk.
    label = max(labels, key=lambda name: (scores[name], labels.index(name)))
    leading = max((one for one in judgements if one.label == label), key=lambda one: one.scores[label], default=None)
    return Judgement(
        label,
        leading.category if leading is not None else label,
        scores,
        max(one.toxicity for one in judgements),
        judgements[0].tier,
        all(one.complete for one in judgements),
        judgements[0].language,
    )
