"""A guard made of parts that tests control: lanes that forbid phrases, a classifier by marker words, no server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from classifiers.message import Classifier
from gateway.call import Call, Chunk, dump
from gateway.forms.chat import CHAT
from gateway.guard.checks import Checks
from gateway.guard.judge import Judge
from gateway.guard.lane import Check, Direction, RailError
from gateway.guard.policy import Policy, Rules, routes_of
from gateway.guard.rails import Guard
from gateway.guard.verdict import Plan
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation
from tests.fakes import Words

# For properties: a machine that is busy with something else is no failure.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class FakeLane:
    """Blocks a text with a phrase of `forbidden`, masks those of `masked`, breaks at those of `broken`."""

    forbidden: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    colang: bool = False
    reach: int = 0
    words: str | None = None
    checked: list[tuple[Direction, str]] = field(default_factory=list)
    contexts: list[Mapping[str, object]] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def check(
        self, direction: Direction, user: str, reply: str | None, context: Mapping[str, object], timeout_seconds: float
    ) -> Check:
        text = user if reply is None else reply
        self.checked.append((direction, text))
        self.contexts.append(context)
        self.users.append(user)
        if any(phrase in text for phrase in self.broken):
            raise RailError("breaker", "timeout")
        if any(phrase in text for phrase in self.forbidden):
            return Check("block", "forbidder", self.words)
        changed = text
        for phrase in self.masked:
            changed = changed.replace(phrase, "***")
        return Check("modify", "masker", changed) if changed != text else Check("pass")

    async def warm(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def texts(self, direction: Direction) -> list[str]:
        return [text for found, text in self.checked if found == direction]


class Detector:
    """The model's own refusal is whatever begins with `I won't`."""

    def refuses(self, text: str) -> bool:
        return text.startswith("I won't")


def policy(**rules: Any) -> Policy:
    found = Rules.model_validate(rules)
    return Policy("test", Path("rails/test"), "sha256:0", found, routes_of(found, {}))


def guard(
    fast: FakeLane | None = None, slow: FakeLane | None = None, classifier: Classifier | None = None, **rules: Any
) -> Guard:
    judge = Judge(classifier or Words(), max_batch=8, memory=100)
    lanes: Any = (fast or FakeLane(), slow or FakeLane(colang=True))
    return Guard(Checks(policy(**rules), lanes, judge, Detector(), 2))


def observation(metrics: Metrics | None = None) -> Observation:
    return Observation(metrics or Metrics(), "chat_completions", "test", "sha256:0", "req_1")


def chat(*messages: Mapping[str, Any] | str, **fields: Any) -> Call:
    """A request; a string is a user's turn."""
    turns = [{"role": "user", "content": turn} if isinstance(turn, str) else dict(turn) for turn in messages]
    body = {"model": "m", "messages": turns or [{"role": "user", "content": "Hello"}], **fields}
    return Call(CHAT, body, dump(body), "req_1")


def chunks(*bodies: Mapping[str, Any]) -> list[Chunk]:
    return [Chunk(body, dump(body)) for body in bodies]


async def source(sent: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in sent:
        yield chunk


async def released(
    guard: Guard, sent: Iterable[Chunk], request: Call | None = None, plan: Plan | None = None, **options: Any
) -> list[Chunk]:
    """What a client gets of a stream."""
    seen = options.get("seen") or observation()
    checked = guard.check_stream(request or chat("Hello", stream=True), source(sent), plan or Plan(), seen)
    return [chunk async for chunk in checked]


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of one series; 0.0 where it does not exist."""
    return metrics.registry.get_sample_value(f"hhh_{name}", labels) or 0.0
