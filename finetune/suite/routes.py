"""The control token that the gateway would set: triage's route over the turns of a conversation, by a policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from classifiers.cascade import Cascade
from finetune.suite.subject import Message
from gateway.config import load
from gateway.forms.chat import CHAT
from gateway.guard import policy
from gateway.guard.plan import merge, units
from gateway.upstream.layout import Control


class Router(Protocol):
    def controls(self, conversations: Sequence[Sequence[Message]]) -> list[Control]: ...


class Fixed:
    """The same token always: what a model does without triage."""

    def controls(self, conversations: Sequence[Sequence[Message]]) -> list[Control]:
        return ["comply"] * len(conversations)


class Routed:
    """As the gateway routes, with the shipped triage and a policy's thresholds. Review forwards, as in the gateway."""

    def __init__(self, name: str = "finance", rails: Path | None = None) -> None:
        settings = load(None, **({"rails_dir": rails} if rails else {}))
        self._triage = Cascade.load(settings.triage.weights, settings.triage.threads)
        self._policy = policy.load(settings.policies(), name, self._triage.operating_points)

    def controls(self, conversations: Sequence[Sequence[Message]]) -> list[Control]:
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Sequence[Message]) -> Control:
        body = {"messages": [dict(message) for message in conversation]}
        turns = units(CHAT.segments(body), CHAT.earlier(body))
        route = merge(self._policy, turns, self._triage.score(turns)).route
        if route == "refuse":
            return "refuse"
        return "advise" if route == "advise" else "comply"
