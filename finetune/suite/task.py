"""Can it still do its job: perplexity on held-out dialogues; of replies to finance questions, key facts and topic."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from finetune.suite import rows, topic
from finetune.suite.bench import Bench
from finetune.suite.figures import Figure, plain, share
from finetune.suite.likelihood import Likelihood, Scored, Turn
from finetune.suite.part import Example, Part, Table, known
from finetune.suite.rows import Question

SHOWN = 40
RESAMPLES = 500


async def measure(bench: Bench) -> Part:
    asked = bench.some(rows.questions(), "questions")
    replies = await bench.ask([one.text for one in asked], "task: facts")
    found = [present(reply.text, one) for reply, one in zip(replies, asked, strict=True)]
    kept = topic.keeps([one.text for one in asked], [reply.text for reply in replies])
    notes = ["A fact is present when one of its spellings is; that the rest of the answer is true is not checked."]
    figures: list[Figure | None] = [
        share("task.on_topic", sum(kept), len(kept)),
        _facts("task.facts", found),
        _facts("task.facts_taught", [hits for hits, one in zip(found, asked, strict=True) if one.taught]),
        _facts("task.facts_new", [hits for hits, one in zip(found, asked, strict=True) if not one.taught]),
    ]
    if bench.likelihood is None:
        notes.append("Perplexity needs the weights: not measured of a server.")
    else:
        figures += _perplexity(bench.likelihood, bench, notes)
    whole = [all(hits) for hits in found]
    by: dict[str, list[bool]] = {}
    for one, hits in zip(asked, found, strict=True):
        by.setdefault(("taught: " if one.taught else "new: ") + one.topic.split(".")[0], []).extend(hits)
    body = [[topic, str(len(hits)), f"{sum(hits)} of {len(hits)}"] for topic, hits in sorted(by.items())]
    missing = [
        Example(one.id, one.text, reply.text, "missing: " + "; ".join("|".join(fact) for fact in _missing(one, hits)))
        for one, reply, hits in zip(asked, replies, found, strict=True)
        if not all(hits)
    ]
    notes.append(f"Questions with all of their facts: {sum(whole)} of {len(whole)}.")
    return Part(
        "task",
        known(*figures),
        [Table("Key facts by topic", ["topic", "facts", "present"], body)],
        missing[:SHOWN],
        notes,
    )


def present(reply: str, question: Question) -> list[bool]:
    """Per fact, whether one of its spellings is in the reply. `follow*` also finds follows and following."""
    said = normalised(reply)
    return [any(pattern(spelling).search(said) for spelling in fact) for fact in question.facts]


def normalised(said: str) -> str:
    """Lower case, one space, 1,000 as 1000, hyphens as spaces."""
    said = re.sub(r"(?<=\d)[,\u202f\u00a0 ](?=\d{3}\b)", "", said.lower().replace("\u2019", "'"))
    return re.sub(r"[\s\-\u2010-\u2015]+", " ", said)


@cache
def pattern(spelling: str) -> re.Pattern[str]:
    stem = spelling.endswith("*")
    body = re.escape(normalised(spelling.rstrip("*")))
    # A figure is not the beginning of a longer one, 1.5 is not 1, and 12.00 is 12.
    end = "" if stem else (r"(?:\.0+)?(?![\d%]*\d)(?!\.\d)" if spelling[-1].isdigit() else r"\b")
    return re.compile((r"(?<![\d.])" if spelling[0].isdigit() else r"\b" if spelling[0].isalpha() else "") + body + end)


def _missing(question: Question, hits: Sequence[bool]) -> list[tuple[str, ...]]:
    return [fact for fact, hit in zip(question.facts, hits, strict=True) if not hit]


def _facts(key: str, found: Sequence[Sequence[bool]]) -> Figure | None:
    return share(key, sum(map(sum, found)), sum(map(len, found)))


def _perplexity(likelihood: Likelihood, bench: Bench, notes: list[str]) -> list[Figure]:
    held = _held_out(bench)
    if not held:
        notes.append(f"No held-out dialogues: {bench.options.recipe} is not there.")
        return []
    scored = likelihood.answers(held, whole=True)
    characters = [len(answer) for _, _, answer in held]
    nats = -sum(one.logprob for one in scored)
    bits = nats / math.log(2) / sum(characters)
    notes.append(
        f"Perplexity: {len(held)} answers of dialogues that the recipe holds out, by their own control token; a token "
        "is the model's own, so only models with one tokenizer compare. Bits a character compare across tokenizers."
    )
    low, high = _interval(scored, bench.options.seed)
    tokens = sum(one.tokens for one in scored)
    return [
        Figure("task.perplexity", math.exp(nats / tokens), low, high, len(held)),
        plain("task.bits_per_character", bits, len(held)),
    ]


def _interval(scored: Sequence[Scored], seed: int) -> tuple[float, float]:
    """Bootstrap over answers."""
    draw = random.Random(seed)
    found = []
    for _ in range(RESAMPLES):
        taken = draw.choices(scored, k=len(scored))
        found.append(math.exp(-sum(one.logprob for one in taken) / sum(one.tokens for one in taken)))
    found.sort()
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]


def _held_out(bench: Bench) -> list[Turn]:
    """The held-out rows of the recipe in their first phrasing, cut to the last answer."""
    from finetune.hhh import corpus, recipe

    path = bench.options.recipe
    if not path.is_file():
        return []
    settings = recipe.read(path)
    found = corpus.read(settings.data.model_copy(update={"helpers": ()}), settings.training.seed)
    turns: list[Turn] = []
    for row in bench.some([one for one in found.dev_rows if one.ask == 0], "dialogues"):
        messages: list[dict[str, Any]] = [
            {"role": "assistant" if at % 2 else "user", "content": said} for at, said in enumerate(row.turns[:-1])
        ]
        turns.append((messages, row.control, row.answer))  # type: ignore[arg-type]
    return turns
