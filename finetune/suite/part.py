"""What a part of the suite found: figures, tables, rows to read, and what must be known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.suite.figures import Figure


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Example:
    """A row that went wrong, or one to read: what was asked, what came, and the verdict."""

    id: str
    asked: str
    reply: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Part:
    """`figures` without those that had no rows. `data`: what pictures need, JSON-like."""

    name: str
    figures: Sequence[Figure]
    tables: Sequence[Table] = ()
    examples: Sequence[Example] = ()
    notes: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return asdict(self)


def known(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def read(value: Mapping[str, Any]) -> Part:
    """A part from a report's JSON."""
    return Part(
        value["name"],
        [Figure(**figure) for figure in value["figures"]],
        [Table(**table) for table in value["tables"]],
        [Example(**example) for example in value["examples"]],
        value["notes"],
        value["data"],
    )
