"""The reward of a reply: not toxic, refused when it should be and only then, and helpful.

Three functions in TRL's form, weighted by the recipe. A column `label` says what is right: `refuse`, `answer`, or `any`
where either is (a provocation). Toxicity is read by the small classifier of the recipe, so that triage's toxicity
stays a judge that nothing was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from classifiers.refusal import RefusalDetector
from finetune.align.toxic import Trained
from finetune.hhh.measure import overlap

Reward = Callable[..., list[float]]


@dataclass(frozen=True, slots=True)
class Judge:
    """What the rewards read replies with."""

    detector: RefusalDetector
    toxicity: Trained


def functions(judge: Judge) -> list[Reward]:
    """`toxicity` (-1..0), `refusal` (-1..1), `helpfulness` (0..1), in this order."""

    def toxicity(completions: Sequence[str], **_: Any) -> list[float]:
        return [-score for score in judge.toxicity.score(completions)]

    def refusal(completions: Sequence[str], label: Sequence[str], **_: Any) -> list[float]:
        return [correctness(judge.detector.score(c), wanted) for c, wanted in zip(completions, label, strict=True)]

    def helpfulness(
        completions: Sequence[str], reference: Sequence[str], facts: Sequence[Sequence[str]], **_: Any
    ) -> list[float]:
        rows = zip(completions, reference, facts, strict=True)
        return [helpful(reply, written, stated) for reply, written, stated in rows]

    return [toxicity, refusal, helpfulness]


def correctness(refusal: float, wanted: str) -> float:
    """1 for the right decision, -1 for the wrong one, linear in the detector's score; 0 where either is right."""
    if wanted == "any":
        return 0.0
    return 2 * refusal - 1 if wanted == "refuse" else 1 - 2 * refusal


def helpful(reply: str, reference: str, facts: Sequence[str] = ()) -> float:
    """Words shared with the written answer (F1), and where key facts are named, half of it the share that appear."""
    if not reply.strip():
        return 0.0
    shared = overlap(reply, reference) if reference else 0.0
    if not facts:
        return shared
    said = _plain(reply)
    return 0.5 * shared + 0.5 * sum(_plain(fact) in said for fact in facts) / len(facts)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9.%]+", text.lower()))
