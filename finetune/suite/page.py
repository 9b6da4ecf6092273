"""The page of a report: one HTML file that loads nothing. Every text from a model is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from finetune.suite.figures import Figure, text
from finetune.suite.part import Example, Part, Table

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25rem .8rem;border-bottom:1px solid #dde3ea;text-align:right;vertical-align:top}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}h2{margin-top:2.2rem}"
    "nav a{margin-right:1rem}code{background:#f1f4f8;padding:0 .25rem}dd{white-space:pre-wrap;margin:0 0 .6rem 1rem}"
    "summary{cursor:pointer;padding:.15rem 0}dt{font-weight:600}.met{color:#176b3a}.missed,.success{color:#a03015}"
    ".note{color:#52606d}"
)


def html(about: dict[str, Any], parts: Sequence[Part], pictures: Sequence[tuple[str, Path]]) -> str:
    """`about`: the subject and the settings. `pictures`: a title and a PNG each."""
    links = " ".join(f"<a href=#{part.name}>{part.name}</a>" for part in parts)
    figures = [figure for part in parts for figure in part.figures]
    settings = ", ".join(f"{escape(str(name))} <code>{escape(str(value))}</code>" for name, value in about.items())
    body = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Evaluation of {escape(str(about['subject']))}</title><style>{STYLE}</style>",
        f"<h1>Evaluation of {escape(str(about['subject']))}</h1><p>{settings}</p><nav>{links}</nav>",
        "<p>Intervals are 95 %: Wilson for shares, bootstrap for means. docs/evaluation.md says what figures mean.</p>",
        _figures(figures),
        *(picture(title, path) for title, path in pictures),
        *(_part(part) for part in parts),
        "</html>",
    ]
    return "\n".join(body)


def _figures(figures: Sequence[Figure]) -> str:
    rows = []
    for figure in figures:
        met = figure.met()
        verdict = "" if met is None else f"<span class={'met' if met else 'missed'}>{'met' if met else 'missed'}</span>"
        target = figure.meaning.target
        aim = "" if target is None else f"{'≥' if figure.meaning.better == 'high' else '≤'} {target:g}"
        rows.append(
            f"<tr><td>{escape(figure.meaning.name)}<td>{escape(text(figure))}<td>{figure.rows}<td>{aim}<td>{verdict}"
        )
    return f"<table><tr><th>figure<th>value (95 %)<th>rows<th>target<th>{''.join(rows)}</table>"


def _part(part: Part) -> str:
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in part.notes)
    tables = "".join(table_html(table) for table in part.tables)
    return f"<h2 id={part.name}>{part.name}</h2>{_figures(part.figures)}{notes}{tables}{_examples(part.examples)}"


def table_html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}" for name in table.head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in table.rows)
    return f"<h3>{escape(table.title)}</h3><table><tr>{head}{body}</table>"


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    shown = "".join(
        f"<details><summary>{escape(one.verdict)} | {escape(one.asked)}</summary><dl><dt>asked</dt>"
        f"<dd>{escape(one.asked)}</dd><dt>reply</dt><dd>{escape(one.reply)}</dd></dl></details>"
        for one in examples
    )
    return f"<h3>Rows to read</h3>{shown}"


def picture(title: str, path: Path) -> str:
    image = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{image}"></figure>'
