"""What every part of the suite works with: the subject's answers, the graders, the settings and the progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from finetune.suite import rows
from finetune.suite.answers import Answers
from finetune.suite.grade import Grader
from finetune.suite.judge import Judge
from finetune.suite.likelihood import Likelihood
from finetune.suite.routes import Router
from finetune.suite.subject import Ask, Message, Reply

T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """`limit`: most rows of each set (None: all). `shared`: the shared data set, for WEAT and BBQ; may be absent.

    `recipe`: whose held-out dialogues perplexity is measured on. `mutators` empty: all.
    """

    seed: int = 0
    limit: int | None = None
    samples: int = 4
    temperature: float = 0.8
    max_tokens: int = 256
    bbq_rows: int = 200
    control: Literal["triage", "none"] = "none"
    shared: Path = Path("../shared/data")
    recipe: Path = Path("finetune/recipes/embedded/sft.yaml")
    mutators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """`likelihood` is None for a server: what needs token probabilities is left out there."""

    answers: Answers
    router: Router
    grader: Grader
    judge: Judge
    likelihood: Likelihood | None
    options: Options
    progress: Progress = lambda _, __, ___: None

    async def ask(self, texts: Sequence[str], label: str) -> list[Reply]:
        """The greedy reply to each text as a conversation of one turn."""
        found = await self.sample([[{"role": "user", "content": text}] for text in texts], label, 1, 0.0)
        return [replies[0] for replies in found]

    async def sample(
        self, conversations: Sequence[Sequence[Message]], label: str, samples: int, temperature: float
    ) -> list[list[Reply]]:
        """`samples` replies to each conversation, with seeds that follow each other."""
        controls = self.router.controls(conversations)
        options = self.options
        asks = [
            Ask(tuple(one), control, temperature, options.seed + number, options.max_tokens)
            for one, control in zip(conversations, controls, strict=True)
            for number in range(samples)
        ]
        replies = await self.answers.all(asks, lambda count: self.progress(label, count, len(asks)))
        return [replies[at : at + samples] for at in range(0, len(replies), samples)]

    async def turn(self, conversation: Sequence[Message]) -> Reply:
        """The greedy reply to a conversation, whatever its last message is."""
        control = self.router.controls([conversation])[0]
        return await self.answers.one(
            Ask(tuple(conversation), control, 0.0, self.options.seed, self.options.max_tokens)
        )

    def some(self, found: Sequence[T], name: str) -> list[T]:
        return rows.sample(found, self.options.limit, self.options.seed, name)
