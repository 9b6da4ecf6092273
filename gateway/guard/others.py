"""Other classifiers that the configuration names: in place of the shipped encoder, or beside it."""

from __future__ import annotations

from classifiers.cascade import Others
from classifiers.message import Classifier
from classifiers.panel import Panel
from classifiers.triage import Triage
from gateway.config import OtherClassifier
from gateway.config import Triage as Settings
from gateway.errors import ConfigError


def build(settings: Settings) -> Others | None:
    """What makes tier 1 of the shipped encoder and the others; None where there are none. Raises `ConfigError`."""
    if not settings.others:
        return None
    replacing = [_classifier(other, settings.threads) for other in settings.others if other.place == "instead"]
    beside = [_classifier(other, settings.threads) for other in settings.others if other.place == "beside"]

    def tier(ours: Triage) -> Classifier:
        members = [*(replacing or [ours]), *beside]
        return members[0] if len(members) == 1 else Panel(members)

    return tier


def _classifier(other: OtherClassifier, threads: int) -> Classifier:
    if other.kind == "remote":
        from classifiers.remote import RemoteClassifier

        assert other.url is not None
        return RemoteClassifier(
            other.url, other.model, other.labels, other.api_key(), other.several, other.timeout_seconds
        )
    from classifiers.hub import HubClassifier, UnusableModel

    try:
        return HubClassifier.load(other.model, other.labels, threads)
    except UnusableModel as error:
        raise ConfigError(f"triage.others: {error}") from None
