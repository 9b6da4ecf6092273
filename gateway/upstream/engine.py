"""What the in-process engines share: a job, its sampling, and the pieces of text that come out.

An engine turns messages into text. It knows nothing of HTTP or of OpenAI's shapes: that is `inprocess`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.upstream.layout import Control

Finish = Literal["stop", "length"]
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. None means the engine's default."""

    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to produce. Every message is `{"role", "content"}` with text only."""

    messages: Sequence[Mapping[str, str]]
    control: Control = "comply"
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some whole characters of the answer. The last piece says why it ended and what was counted."""

    text: str
    finish: Finish | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Engine(Protocol):
    """A model in process."""

    @property
    def name(self) -> str:
        """The id under which clients ask for it."""

    async def start(self) -> None:
        """Load, off the event loop. Raises `ConfigError`."""

    async def close(self) -> None:
        """Stop; what is being generated fails."""

    def ready(self) -> bool:
        """Whether `generate` would be served."""

    def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The answer in pieces, the last with `finish`. Closing the generator stops it and frees its place.

        Raises `BadRequest` (`context_length_exceeded`) and `UpstreamError`.
        """


def cores(threads: int) -> int:
    """The threads of an engine: those asked for, or (0) all cores but one, which the event loop keeps."""
    return threads or max(1, (os.cpu_count() or 1) - 1)


class Sampler:
    """Chooses the tokens of one answer, from logits, in numpy. The same seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling, default_temperature: float) -> None:
        chosen = sampling.temperature
        self.temperature = default_temperature if chosen is None else chosen
        self.top_p = sampling.top_p
        self.presence = sampling.presence_penalty
        self.frequency = sampling.frequency_penalty
        self.random = np.random.default_rng(sampling.seed)
        self.seen: Counter[int] = Counter()

    def pick(self, logits: Logits) -> int:
        """A token id from the logits [vocabulary] of the next position."""
        if (self.presence or self.frequency) and self.seen:
            logits = logits.copy()
            ids = np.fromiter(self.seen, dtype=np.int64)
            counts = np.fromiter(self.seen.values(), dtype=np.float32)
            logits[ids] -= self.presence + self.frequency * counts
        token = int(logits.argmax()) if self.temperature < 1e-3 else self._draw(logits)
        self.seen[token] += 1
        return token

    def _draw(self, logits: Logits) -> int:
        scaled = (logits.astype(np.float64) - logits.max()) / self.temperature
        weights = np.exp(scaled)
        if self.top_p < 1:
            order = np.argsort(-weights)
            before = np.cumsum(weights[order]) - weights[order]
            order = order[before < self.top_p * weights.sum()]
            return int(order[self._index(weights[order])])
        return self._index(weights)

    def _index(self, weights: NDArray[np.float64]) -> int:
        reached = np.searchsorted(np.cumsum(weights), self.random.random() * weights.sum(), side="right")
        return min(int(reached), len(weights) - 1)
