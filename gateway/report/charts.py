"""The curves of a report as SVG in the page: refused shares over time by category, and the probes' wrong refusals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

WIDTH, HEIGHT = 920, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 30
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#777777")


def stacked(timeline: dict[str, Any]) -> str:
    """Bars: of each step's requests, the share that was refused, by category."""
    starts, requests, series = timeline["start"], timeline["requests"], timeline["refused"]
    shares = {
        name: [count / total if total else 0.0 for count, total in zip(counts, requests, strict=True)]
        for name, counts in series.items()
    }
    highest = max((sum(values) for values in zip(*shares.values(), strict=True)), default=0.0)
    top = _round_up(highest)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(starts))
    bars = []
    for position, start in enumerate(starts):
        below = 0.0
        for colour, (name, values) in zip(COLOURS, shares.items(), strict=False):
            if values[position]:
                y, height = _y(below + values[position], top), _y(0, top) - _y(values[position], top)
                tip = f"{name}: {series[name][position]} of {requests[position]} ({_when(start)})"
                bars.append(
                    f'<rect x="{LEFT + position * slot + slot * 0.1:.1f}" y="{y:.1f}" width="{slot * 0.8:.1f}" '
                    f'height="{height:.1f}" fill="{colour}"><title>{escape(tip)}</title></rect>'
                )
                below += values[position]
    labels = [(LEFT + (at + 0.5) * slot, _when(starts[at], timeline["step_seconds"])) for at in _spread(len(starts))]
    figure = _figure("Share of requests refused over time, by category", _axes(top, labels) + "".join(bars))
    return figure + _legend(list(shares))


def history(runs: Sequence[dict[str, Any]]) -> str:
    """Two lines over the probe runs: harmless probes refused, and harmful ones missed."""
    runs = list(runs)[-200:]
    series = {"harmless probes refused": "wrong", "harmful probes missed": "missed"}
    top = _round_up(max((run[key]["share"] for run in runs for key in series.values()), default=0.0))
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(runs))
    marks = []
    for colour, key in zip(COLOURS, series.values(), strict=False):
        points = [(LEFT + (at + 0.5) * slot, _y(run[key]["share"], top)) for at, run in enumerate(runs)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), run in zip(points, runs, strict=True):
            tip = f"{run[key]['hits']} of {run[key]['total']}, {_when(run['at'])}, policy {run['policy_version']}"
            marks.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(tip)}</title></circle>'
            )
    for at in range(1, len(runs)):
        if any(runs[at][key] != runs[at - 1][key] for key in ("policy_version", "weights")):
            x = LEFT + at * slot
            marks.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="change">'
                "<title>policy or classifier changed here</title></line>"
            )
    labels = [(LEFT + (at + 0.5) * slot, _when(runs[at]["at"], 3600)) for at in _spread(len(runs))]
    return _figure("Probes over their runs", _axes(top, labels) + "".join(marks)) + _legend(list(series))


def _figure(title: str, inside: str) -> str:
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{inside}</svg></div>"
    )


def _axes(top: float, labels: Sequence[tuple[float, str]]) -> str:
    lines = []
    for quarter in range(5):
        value = top * quarter / 4
        y = _y(value, top)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        label = f"{value * 100:.3g} %"
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for x, text in labels:
        anchor = "end" if x > WIDTH - RIGHT - 45 else "middle"
        lines.append(
            f'<text x="{min(x, WIDTH - RIGHT):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(text)}</text>'
        )
    return "".join(lines)


def _legend(names: Sequence[str]) -> str:
    marks = (
        f'<li><span style="background:{colour}"></span>{escape(name)}</li>'
        for colour, name in zip(COLOURS, names, strict=False)
    )
    return f'<ul class="legend">{"".join(marks)}</ul>'


def _spread(count: int, most: int = 6) -> list[int]:
    """Positions that get a label."""
    if count <= most:
        return list(range(count))
    return [round(at * (count - 1) / (most - 1)) for at in range(most)]


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _round_up(value: float) -> float:
    return next((top for top in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if value <= top), 1.0)


def _when(at: float, step_seconds: int = 60) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return when.strftime("%d %b" if step_seconds >= 86_400 else "%d %b %H:%M")
