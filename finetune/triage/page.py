"""The page of a triage report: one HTML file that loads nothing."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from finetune.triage import pictures

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25rem .8rem;border-bottom:1px solid #dde3ea;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}h2{margin-top:2rem}"
    "nav a{margin-right:1rem}code{background:#f1f4f8;padding:0 .25rem}"
)


def html(report: dict[str, Any], folder: Path) -> str:
    """The report as HTML; the pictures lie in `folder`."""
    flagged, ece = report["flagged"], report["ece"]
    sections = [
        _section(
            "Operating points", ["point", "harmless rows flagged", "others flagged", "thresholds"], _points(report)
        ),
        *(
            _section(
                f"Point: {name}", ["source / label", "flagged"], [[a, percent(b)] for a, b in one["sources"].items()]
            )
            for name, one in report["operating_points"].items()
        ),
        _section("Labels", ["label", "rows", "precision", "recall", "F1"], labels(report)),
        _section("Categories", ["category", "flagged"], [[a, percent(b)] for a, b in report["categories"].items()]),
        _section(
            "Sources, by the likeliest label", ["source / label", "flagged", "exactly its label"], sources(report)
        ),
        _section("Thresholds", ["label ≥ threshold", "recall", "harmless rows that reach it"], _thresholds(report)),
    ]
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><title>Triage report</title>",
            f"<style>{_STYLE}</style><h1>Triage report</h1>",
            f"<p>{report['rows']} labelled rows. Weights <code>{escape(report['weights'])}</code>. "
            "Intervals are 95 % Wilson intervals.</p>",
            "<p>By the likeliest label: "
            f"<b>harmless rows flagged</b> (false-positive rate) {percent(flagged['false_positive_rate'])}; "
            f"<b>other rows flagged</b> (recall) {percent(flagged['recall'])}.</p>",
            *(
                f"<p>Tier <code>{tier}</code> judged: benign {percent(one['benign'])}, others {percent(one['others'])}."
                for tier, one in report["tiers"].items()
            ),
            f"<p>Expected calibration error {ece['before']:.3f} before the temperature, "
            f"{ece['after']:.3f} after, over {ece['rows']} rows.</p>",
            *(_picture(folder / name, title) for name, title in pictures.NAMES.items()),
            *sections,
            "</html>",
        ]
    )


def percent(share: dict[str, Any]) -> str:
    """A share with its interval and counts, as text."""
    if not share["total"]:
        return "-"
    return f"{share['share']:.1%} ({share['low']:.1%} to {share['high']:.1%}; {share['hits']} of {share['total']})"


def labels(report: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: per label its figures."""
    return [
        [label, str(one["rows"]), f"{one['precision']:.1%}", percent(one["recall"]), f"{one['f1']:.3f}"]
        for label, one in report["labels"].items()
    ]


def sources(report: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: per source and label what is flagged, and what gets its own label."""
    return [[name, percent(one["flagged"]), percent(one["exact"])] for name, one in report["sources"].items()]


def _points(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            percent(one["false_positive_rate"]),
            percent(one["recall"]),
            ", ".join(f"{label} {least['doubt']:.2f}/{least['act']:.2f}" for label, least in one["thresholds"].items()),
        ]
        for name, one in report["operating_points"].items()
    ]


def _thresholds(report: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{label} ≥ {one['threshold']}", percent(one["recall"]), percent(one["false_positive_rate"])]
        for label, steps in report["thresholds"].items()
        for one in steps
    ]


def _picture(path: Path, title: str) -> str:
    image = base64.b64encode(path.read_bytes()).decode()
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{image}">'


def _section(title: str, head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{cells}{body}</table>"
