"""Several runs side by side: one table in Markdown, HTML and JSON, and the same table inside a document.

Docs and model cards take their figures from here, between two markers, so that they cannot drift from the reports:
`<!-- hhh eval: NAME -->` and `<!-- end hhh eval -->`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from finetune.suite import pictures, report
from finetune.suite.figures import KNOWN, Figure, text
from finetune.suite.page import STYLE, picture

BEGIN, END = "<!-- hhh eval: {} -->", "<!-- end hhh eval -->"
# Whose change against the first run is what counts.
CHANGES = ("toxicity.mean", "bias.weat", "bias.seat", "task.perplexity", "task.bits_per_character")
Runs = Mapping[str, Mapping[str, Figure]]


class NoMarker(ValueError):
    """A document has no place for the table. The message says what to put there."""


def run(places: Sequence[Path], folder: Path, names: Sequence[str] = ()) -> str:
    """Write compare.md, .html, .json and a picture into `folder`; the table in Markdown. Raises `NoReport`."""
    runs = collect(places, names)
    table = markdown(runs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.md").write_text(table, encoding="utf-8")
    value = {
        name: {
            key: {"value": one.value, "low": one.low, "high": one.high, "rows": one.rows} for key, one in found.items()
        }
        for name, found in runs.items()
    }
    (folder / "compare.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    drawn = folder / "compare.png"
    image = picture("shares side by side", drawn) if pictures.compare(runs, drawn) else ""
    (folder / "compare.html").write_text(html(runs, image), encoding="utf-8")
    return table


def collect(places: Sequence[Path], names: Sequence[str] = ()) -> dict[str, Mapping[str, Figure]]:
    """Figures by the name of each run: the one given, else its folder's. Raises `NoReport` and `ValueError`."""
    if names and len(names) != len(places):
        raise ValueError(f"{len(names)} names for {len(places)} reports")
    chosen = list(names) or [(place if place.is_dir() else place.with_suffix("")).resolve().name for place in places]
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"two runs have the same name: {', '.join(chosen)}; give others with --name")
    return {name: report.read(place)[1] for name, place in zip(chosen, places, strict=True)}


def cells(runs: Runs) -> list[list[str]]:
    """A row per figure that any run has: its name, its target, and a cell per run."""
    first = next(iter(runs.values()), {})
    body = []
    for key, meaning in KNOWN.items():
        if not any(key in found for found in runs.values()):
            continue
        aim = "" if meaning.target is None else f"{'≥' if meaning.better == 'high' else '≤'} {100 * meaning.target:g} %"
        row = [meaning.name, aim]
        for number, found in enumerate(runs.values()):
            row.append(_cell(found.get(key), first.get(key) if number else None))
        body.append(row)
    return body


def _cell(figure: Figure | None, first: Figure | None) -> str:
    if figure is None:
        return "-"
    shown = text(figure)
    if figure.key in CHANGES and first is not None and first.value:
        shown += f", {figure.value / first.value - 1:+.0%}"
    met = figure.met()
    return shown if met is None else f"{shown} {'✓' if met else '✗'}"


def markdown(runs: Runs) -> str:
    """The table; its head names the runs."""
    head = ["figure (95 % interval)", "target", *runs]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells(runs)]
    return "\n".join(lines) + "\n"


def html(runs: Runs, image: str = "") -> str:
    head = "".join(f"<th>{escape(name)}" for name in ("figure", "target", *runs))
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in cells(runs))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Comparison</title><style>{STYLE}</style>"
        f"<h1>Comparison</h1><p>Intervals are 95 %. Changes are against the first run. ✓ and ✗: the target is met or "
        f"missed.</p><table><tr>{head}{body}</table>{image}</html>\n"
    )


def insert(document: Path, name: str, table: str) -> None:
    """Put the table between the markers of `name` in a Markdown file. Raises `NoMarker`."""
    begin = BEGIN.format(name)
    said = document.read_text(encoding="utf-8")
    head, found, rest = said.partition(begin)
    _, ended, tail = rest.partition(END)
    if not found or not ended:
        raise NoMarker(f"{document}: put the lines {begin} and {END} where the table is to stand")
    document.write_text(f"{head}{begin}\n{table}{END}{tail}", encoding="utf-8")


def inserted(document: Path, name: str) -> str:
    """The table that stands between the markers of `name`; empty if there is none."""
    _, _, rest = document.read_text(encoding="utf-8").partition(BEGIN.format(name))
    return rest.partition(END)[0].lstrip("\n")
