"""How a policy with given weights treats rows: the route that the gateway would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from classifiers.cascade import Cascade
from classifiers.message import Judgement, Message
from gateway.call import Route
from gateway.config import load
from gateway.guard import policy
from gateway.guard.plan import merge

Points = Mapping[str, Mapping[str, Mapping[str, float]]]
_BATCH = 64


class Judge:
    """Weights behind a policy, as they are served: calibrated, with passages and other readings."""

    def __init__(self, weights: Path, name: str, rails: Path) -> None:
        self.cascade = Cascade.load(weights, threads=1)
        self._policies = load(None, rails_dir=rails).policies()
        self._name = name
        self.points: Points = self.cascade.operating_points

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order."""
        found: list[Judgement] = []
        for start in range(0, len(messages), _BATCH):
            found += self.cascade.score(messages[start : start + _BATCH])
        return found

    def routes(
        self, messages: Sequence[Message], judged: Sequence[Judgement], points: Points | None = None
    ) -> list[Route]:
        """By the weights' own operating points, or by others."""
        rules = policy.load(self._policies, self._name, points or self.points)
        return [merge(rules, [message], [one]).route for message, one in zip(messages, judged, strict=True)]

    def point_name(self) -> str:
        """The operating point that the policy names."""
        return str(policy.load(self._policies, self._name, self.points).rules.operating_point)
