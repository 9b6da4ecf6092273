"""Makes guards of policies' folders. What all policies share, the classifiers, is loaded once and handed to each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from classifiers.cascade import Cascade
from classifiers.message import Classifier
from classifiers.refusal import RefusalDetector
from classifiers.shipped import CorruptWeights
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.guard import nemo, others, policy
from gateway.guard.checks import Checks, Refusals
from gateway.guard.judge import Judge
from gateway.guard.rails import Guard


@dataclass(frozen=True, slots=True)
class Loader:
    """The classifiers, and where policies are. The judge's memory is of messages, whatever the policy."""

    folder: Path
    judge: Judge
    refusals: Refusals
    points: policy.Points
    triage_timeout_seconds: float

    @classmethod
    def of(cls, config: Config, classifier: Classifier | None = None) -> Loader:
        """Load the classifiers; `classifier` replaces triage's. Blocks for a second. Raises `ConfigError`."""
        triage = config.triage
        screen = None
        points: policy.Points = {}
        try:
            refusals = RefusalDetector.load()
            if classifier is None:
                cascade = Cascade.load(triage.weights, triage.threads, others.build(triage))
                classifier, screen, points = cascade.reader, cascade.clear, cascade.operating_points
        except CorruptWeights as error:
            raise ConfigError(str(error)) from None
        judge = Judge(classifier, max_batch=triage.max_batch, memory=triage.memory, screen=screen)
        return cls(config.policies(), judge, refusals, points, triage.timeout_seconds)

    def guard(self, name: str, known_as: str | None = None) -> Guard:
        """A guard of the policy as its files are now, not yet warm. Blocks for a second. Raises `ConfigError`."""
        rules = policy.load(self.folder, name, self.points)
        rules = replace(rules, name=known_as or name)
        lanes = nemo.load(rules.folder, rules.rules.patterns)
        return Guard(Checks(rules, lanes, self.judge, self.refusals, self.triage_timeout_seconds))

    def close(self) -> None:
        """Let go of the classifier's thread; no guard can judge after that."""
        self.judge.close()
