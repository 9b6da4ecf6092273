"""What the pages of reports are made of: their style, tables, shares."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = (
    ":root{color-scheme:light dark;--ink:#1d2733;--paper:#fff;--soft:#5b6876;--line:#dde3ea;--fill:#f4f6f9;"
    "--bad:#b3261e;--good:#1b7a43}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--paper:#14181d;--soft:#9aa7b5;--line:#2c343d;"
    "--fill:#1c2229;"
    "--bad:#ff8a80;--good:#6fd39b}}"
    "*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;"
    "padding:1.5rem 1rem 4rem;"
    "color:var(--ink);background:var(--paper)}h1{margin:.2rem 0}h2{margin:2.4rem 0 .4rem;font-size:1.2rem}"
    "p{max-width:46rem}.soft{color:var(--soft)}.bad{color:var(--bad)}.good{color:var(--good)}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0 1rem;font-variant-numeric:tabular-nums}"
    "td,th{padding:.3rem .8rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}"
    "td:first-child,th:first-child,.text{text-align:left}.text{min-width:15rem;max-width:36rem;overflow-wrap:anywhere}"
    "td.wrong{background:color-mix(in srgb,var(--bad) 16%,transparent);font-weight:600}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.tile{background:var(--fill);border-radius:.5rem;"
    "padding:.7rem 1rem;flex:1 1 8.5rem}.tile b{display:block;font-size:1.6rem;line-height:1.3}"
    ".tile span{color:var(--soft)}"
    "svg{width:100%;min-width:34rem;height:auto;font-size:12px;fill:var(--soft)}.chart{overflow-x:auto}"
    ".grid{stroke:var(--line)}.change{stroke:var(--ink);stroke-dasharray:4 3}"
    ".legend{list-style:none;padding:0;margin:.2rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}"
    ".legend span{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin-right:.4rem}"
    "code{background:var(--fill);padding:0 .25rem;border-radius:.2rem}"
)

NOTHING = "-"


def percent(share: dict[str, Any]) -> str:
    """A share with its interval and counts."""
    if not share["total"]:
        return NOTHING
    return (
        f"{share['share']:.1%} <span class=soft>({share['low']:.1%} to {share['high']:.1%}; "
        f"{share['hits']} of {share['total']})</span>"
    )


def plain(share: dict[str, Any]) -> str:
    """A share alone."""
    return f"{share['share']:.1%}" if share["total"] else NOTHING


class Raw(str):
    """HTML of our own making."""


class Text(str):
    """A message, shown wide and to the left."""


class Cell(int):
    """A count; where `wrong`, one that should be zero."""

    wrong: bool

    def __new__(cls, count: int, wrong: bool) -> Cell:
        cell = super().__new__(cls, count)
        cell.wrong = wrong and count > 0
        return cell


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    first = rows[0] if rows else ()
    wide = [isinstance(value, Text) for value in first]
    cells = "".join(
        f"<th{' class=text' if at < len(wide) and wide[at] else ''}>{escape(name)}" for at, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}" for row in rows)
    return f"<div class=scroll><table><tr>{cells}{body}</table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}"
    if isinstance(value, Text):
        return f"<td class=text>{escape(value)}"
    if isinstance(value, Cell):
        return f"<td{' class=wrong' if value.wrong else ''}>{int(value)}"
    return f"<td>{escape(str(value))}"
