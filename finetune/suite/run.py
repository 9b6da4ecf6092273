"""One run of the suite over one subject: `hhh eval PART --model M | --base-url URL --report DIR`.

Writes report.json, report.html, pictures and answers.jsonl into the report's folder. A run that was stopped goes on
from the answers that are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from classifiers.refusal import RefusalDetector
from finetune.suite import bias, honesty, redteam, refusals, report, task, toxicity
from finetune.suite.answers import Answers
from finetune.suite.bench import Bench, Options
from finetune.suite.grade import Grader
from finetune.suite.judge import Judge
from finetune.suite.likelihood import Likelihood, load
from finetune.suite.part import Part
from finetune.suite.remote import Remote
from finetune.suite.routes import Fixed, Routed
from finetune.suite.subject import Local, NoSubject, Subject

MEASURES: dict[str, Callable[[Bench], Awaitable[Part]]] = {
    "refusals": refusals.measure,
    "toxicity": toxicity.measure,
    "bias": bias.measure,
    "task": task.measure,
    "honesty": honesty.measure,
}
PARTS = (*MEASURES, "redteam", "all")
WEIGHTS = ("bias", "task")  # the parts that look into the model


@dataclass(frozen=True, slots=True)
class Order:
    """`model`: a folder or a hub id; with `base_url`, the name under which the server knows its model.

    `judge`: triage weights for the toxicity judge, where the subject was trained against the shipped ones.
    """

    part: str
    report: Path
    model: str | None = None
    base_url: str | None = None
    key: str | None = None
    options: Options = field(default_factory=Options)
    concurrency: int = 16
    threads: int = 0
    judge: Path | None = None
    fresh: bool = False
    quiet: bool = False


def run(order: Order) -> dict[str, Any]:
    """The report, as report.json has it. Raises `NoSubject`, `ConfigError`, `BadRows`, `ValueError`."""
    return asyncio.run(_run(order))


async def _run(order: Order) -> dict[str, Any]:
    names = tuple(MEASURES) if order.part == "all" else (order.part,)
    subject = _subject(order)
    if order.options.control == "triage" and not subject.controls:
        raise NoSubject(f"{subject.name} has no control tokens; leave --control triage out")
    order.report.mkdir(parents=True, exist_ok=True)
    kept = order.report / "answers.jsonl"
    if order.fresh:
        kept.unlink(missing_ok=True)
    try:
        await subject.start()
        likelihood = _likelihood(subject, order) if set(names) & set(WEIGHTS) else None
        judge = Judge(order.judge)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=order.quiet) as shown:
            bench = Bench(
                Answers(kept, subject, order.concurrency),
                Routed() if order.options.control == "triage" else Fixed(),
                Grader(RefusalDetector.load(), judge.known),
                judge,
                likelihood,
                order.options,
                _Bars(shown).show,
            )
            parts = [await _measure(name, bench, order.report) for name in names]
    finally:
        await subject.close()
        if isinstance(subject, Local):
            subject.forget()
    return report.write(order.report, _about(subject, order), subject.fingerprint, parts)


async def _measure(name: str, bench: Bench, folder: Path) -> Part:
    if name == "redteam":
        return await redteam.measure(bench, folder)
    return await MEASURES[name](bench)


def _subject(order: Order) -> Subject:
    if order.base_url is not None:
        return Remote(order.base_url, order.model, order.key)
    if order.model is None:
        raise NoSubject("name a model (--model) or a server (--base-url)")
    return Local(order.model, order.threads, order.concurrency)


def _likelihood(subject: Subject, order: Order) -> Likelihood | None:
    return load(subject.place, order.threads) if isinstance(subject, Local) else None


def _about(subject: Subject, order: Order) -> dict[str, Any]:
    """What two reports must share to be joined: the subject, and the settings that change figures."""
    options = order.options
    return {
        "subject": subject.name,
        "control": options.control,
        "seed": options.seed,
        "limit": options.limit,
        "samples": options.samples,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "judge": "shipped" if order.judge is None else order.judge.name,
    }


class _Bars:
    """A bar per label."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=total)
        self._progress.update(self._tasks[label], completed=done)
