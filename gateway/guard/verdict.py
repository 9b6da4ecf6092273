"""What the checks say. A verdict is not a failure: a rail that breaks raises `gateway.errors.RailFailed` instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.call import Route

Stage = Literal["triage", "input", "output", "tool"]
Decision = Literal["allow", "advise", "block", "modify", "would_block", "error"]

# The stage that decided, as the `source` label of refusals_total.
SOURCES: Mapping[Stage, str] = {
    "triage": "triage",
    "input": "input_rail",
    "output": "output_rail",
    "tool": "tool_rail",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why something was blocked. `category` is a triage category or `rail`; `text` the words of refusal."""

    stage: Stage
    rail: str
    category: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What triage made of the new turns of a chat. `scores` are per label, 0 to 1; `toxicity` likewise."""

    route: Route = "allow"
    label: str = "benign"
    category: str = "benign"
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    toxicity: float = 0.0
    tier: str = "none"
    language: str = "en"

    def context(self) -> dict[str, object]:
        """The variables that Colang flows see."""
        return {
            "triage_label": self.label,
            "triage_category": self.category,
            "triage_score": round(self.score, 4),
            "triage_route": self.route,
            "triage_toxicity": round(self.toxicity, 4),
            "triage_language": self.language,
        }


class Blocked(Exception):
    """Ends the data path with a refusal."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
