"""The pictures and the page of a triage report. The page is one file: it loads nothing."""

from __future__ import annotations

import base64
import csv
from html import escape
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from classifiers.labels import LABELS

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.25rem .8rem;border-bottom:1px solid #dde3ea;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}h2{margin-top:2rem}"
)


def draw(matrix: NDArray[numpy.int64], path: Path) -> None:
    """The confusion matrix: counts, shaded by the share of each row."""
    from matplotlib.figure import Figure

    shares = matrix / numpy.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [label.replace("_", " ") for label in LABELS]
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    counted = [f"{name}  (n={total})" for name, total in zip(names, matrix.sum(1), strict=True)]
    axes.set_yticks(range(len(names)), counted)
    axes.set_xlabel("triage says")
    axes.set_ylabel("truth")
    axes.set_title("Triage: confusion matrix")
    for row in range(len(names)):
        for column in range(len(names)):
            if matrix[row, column]:
                shade = "white" if shares[row, column] > 0.55 else "#1d2733"
                text = f"{matrix[row, column]}\n{shares[row, column]:.1%}"
                axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    figure.savefig(path, dpi=130)


def tabulate(matrix: NDArray[numpy.int64], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["truth \\ found", *LABELS])
        writer.writerows([label, *row] for label, row in zip(LABELS, matrix.tolist(), strict=True))


def page(report: dict[str, Any], picture: Path) -> str:
    """The report as HTML."""
    flagged = report["flagged"]
    image = base64.b64encode(picture.read_bytes()).decode()
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><title>Triage report</title>",
            f"<style>{_STYLE}</style><h1>Triage report</h1>",
            f"<p>{report['rows']} labelled rows. Weights <code>{escape(report['weights'])}</code>. "
            "Intervals are 95 % Wilson intervals.</p>",
            f"<p><b>Benign rows flagged</b> (false-positive rate): {percent(flagged['false_positive_rate'])}. "
            f"<b>Other rows flagged</b> (recall): {percent(flagged['recall'])}.</p>",
            *(
                f"<p>Tier <code>{tier}</code> judged: benign {percent(one['benign'])}, others {percent(one['others'])}."
                for tier, one in report["tiers"].items()
            ),
            f'<img alt="Confusion matrix" src="data:image/png;base64,{image}">',
            _section("Labels", ["label", "rows", "precision", "recall", "F1"], _labels(report)),
            _section("Sources", ["source / label", "flagged", "given exactly its label"], _sources(report)),
            _section("Thresholds", ["label ≥ threshold", "recall", "benign rows that reach it"], _thresholds(report)),
            f"<p>Expected calibration error {report['ece']['before']:.3f} before the temperature, "
            f"{report['ece']['after']:.3f} after, over {report['ece']['rows']} rows.</p></html>",
        ]
    )


def percent(share: dict[str, Any]) -> str:
    if not share["total"]:
        return "-"
    return f"{share['share']:.1%} ({share['low']:.1%} to {share['high']:.1%}; {share['hits']} of {share['total']})"


def _labels(report: dict[str, Any]) -> list[list[str]]:
    return [
        [label, str(one["rows"]), f"{one['precision']:.1%}", percent(one["recall"]), f"{one['f1']:.3f}"]
        for label, one in report["labels"].items()
    ]


def _sources(report: dict[str, Any]) -> list[list[str]]:
    return [[name, percent(one["flagged"]), percent(one["exact"])] for name, one in report["sources"].items()]


def _thresholds(report: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{label} ≥ {one['threshold']}", percent(one["recall"]), percent(one["false_positive_rate"])]
        for label, steps in report["thresholds"].items()
        for one in steps
    ]


def _section(title: str, head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{cells}{body}</table>"
