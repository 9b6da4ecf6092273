"""The pictures of a triage report: confusion matrix, ROC curves, reliability."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from classifiers.labels import LABELS

NAMES = {
    "confusion.png": "Confusion matrix",
    "roc.png": "ROC: each risk against harmless rows",
    "reliability.png": "Reliability: what a confidence is worth",
}
_INK = "#1d2733"


def draw(report: dict[str, Any], folder: Path) -> None:
    """Write the pictures, and the matrix as `confusion.csv`."""
    from matplotlib.figure import Figure

    matrix = numpy.array(report["confusion"], numpy.int64)
    _tabulate(matrix, folder / "confusion.csv")
    _confusion(matrix, Figure(figsize=(7.6, 6.4), layout="constrained"), folder / "confusion.png")
    _roc(report["roc"], Figure(figsize=(7.6, 5.2), layout="constrained"), folder / "roc.png")
    _reliability(report, Figure(figsize=(7.6, 5.2), layout="constrained"), folder / "reliability.png")


def _confusion(matrix: NDArray[numpy.int64], figure: Any, path: Path) -> None:
    """Counts, shaded by the share of each row."""
    shares = matrix / numpy.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [label.replace("_", " ") for label in LABELS]
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    counted = [f"{name}  (n={total})" for name, total in zip(names, matrix.sum(1), strict=True)]
    axes.set_yticks(range(len(names)), counted)
    axes.set_xlabel("triage says")
    axes.set_ylabel("truth")
    for row in range(len(names)):
        for column in range(len(names)):
            if matrix[row, column]:
                shade = "white" if shares[row, column] > 0.55 else _INK
                text = f"{matrix[row, column]}\n{shares[row, column]:.1%}"
                axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    figure.savefig(path, dpi=130)


def _roc(curves: dict[str, Any], figure: Any, path: Path) -> None:
    """Up to a false-positive rate of 20 %, where operating points lie."""
    axes = figure.add_subplot()
    for label, one in curves.items():
        wrong, caught = zip(*one["curve"], strict=True)
        axes.plot(wrong, caught, label=f"{label.replace('_', ' ')} (area {one['area']:.3f})", linewidth=1.8)
    axes.set_xlim(0, 0.2)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("harmless rows that reach the threshold")
    axes.set_ylabel("rows of the label that reach it")
    axes.grid(alpha=0.25)
    if curves:
        axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=130)


def _reliability(report: dict[str, Any], figure: Any, path: Path) -> None:
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color="#9aa5b1", linewidth=1, linestyle="--", label="perfect")
    for name, shade in (("before", "#c77d2e"), ("after", "#2c6fbb")):
        bins = report["reliability"][name]
        where = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
        label = f"{name} the temperature (ECE {report['ece'][name]:.3f})"
        axes.plot(*where, color=shade, marker="o", markersize=4, linewidth=1.6, label=label)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("confidence of the likeliest label")
    axes.set_ylabel("share that is right")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=130)


def _tabulate(matrix: NDArray[numpy.int64], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["truth \\ found", *LABELS])
        writer.writerows([label, *row] for label, row in zip(LABELS, matrix.tolist(), strict=True))
