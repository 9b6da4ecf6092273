"""A candidate: another policy, other triage weights, or both, tried beside the default policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from classifiers.cascade import fingerprint
from classifiers.shipped import TRIAGE
from gateway.config import Config
from gateway.guard.loader import Loader
from gateway.guard.rails import Guard


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a candidate comes from. `name` is the one it goes by: its policy's, and `-candidate`.

    `weights`: the first hex digits of its encoder's sha256. `loader` is its own where the weights are.
    """

    name: str
    folder: Path
    weights: str
    loader: Loader
    own_classifier: bool

    @classmethod
    def of(cls, config: Config, live: Loader) -> Candidate | None:
        """The one that the configuration names, if any. Blocks for a second where it has weights of its own.

        Raises `ConfigError`.
        """
        shadow = config.shadow
        if shadow.policy is None and shadow.weights is None:
            return None
        folder = candidate_folder(config)
        name = f"{folder.name}-candidate"
        weights = shadow.weights or config.triage.weights
        if shadow.weights is None:
            loader = replace(live, folder=folder.parent)
        else:
            triage = config.triage.model_copy(update={"weights": shadow.weights})
            loader = replace(Loader.of(config.model_copy(update={"triage": triage})), folder=folder.parent)
        return cls(name, folder, fingerprint(weights or TRIAGE)[:12], loader, shadow.weights is not None)

    def guard(self) -> Guard:
        """A guard of the candidate as its files are now. Blocks. Raises `ConfigError`."""
        return self.loader.guard(self.folder.name, self.name)

    def close(self) -> None:
        """Let go of its classifier, where it has one of its own."""
        if self.own_classifier:
            self.loader.close()


def candidate_folder(config: Config) -> Path:
    """A bare name is a policy of `rails_dir`; none is the default policy."""
    named = config.shadow.policy
    if named is None:
        return config.policies() / config.policy
    return config.policies() / named if len(named.parts) == 1 else named
