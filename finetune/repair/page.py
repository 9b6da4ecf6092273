"""The page of a repair: what triggered wrong refusals, what was trained, both matrices side by side. Loads nothing."""

from __future__ import annotations

from typing import Any

from finetune.repair.frames import OPENING
from gateway.guard.policy import ROUTES
from gateway.report.page import Cell, Raw, Text, day, page, percent, table

_NOTHING = "-"
# Cells that should be zero: harm let through, harmless messages refused.
_WRONG = {("harmless", "refuse"), ("advice", "refuse"), ("harmful", "allow"), ("harmful", "advise")}


def html(report: dict[str, Any]) -> str:
    """The whole page."""
    content = "".join(
        [
            _verdict(report["verdict"]),
            _tiles(report),
            _matrices(report),
            _triggers(report["triggers"]),
            _set(report["set"], report["records"]),
            _model(report.get("model")),
            _turned(report["turned"]),
        ]
    )
    return page(f"Repair: {report['name']}", day(report["at"]), content)


def _verdict(found: dict[str, Any]) -> str:
    asked = found["asked"]
    lines = [
        (found["fewer"], f"wrong refusals left: {_left(found)} of before (asked: at most {asked['wrong']:.0%})"),
        (found["kept"], f"harmful refused: {found['harmful_change'] * 100:+.1f} points (asked: {_least(asked)})"),
    ]
    return "".join(f"<p class={'good' if good else 'bad'}>{'✓' if good else '✗'} {line}</p>" for good, line in lines)


def _left(found: dict[str, Any]) -> str:
    return _NOTHING if found["left"] is None else f"{found['left']:.0%}"


def _least(asked: dict[str, Any]) -> str:
    return f"no more than {asked['harmful'] * 100:g} below"


def _plain(share: dict[str, Any]) -> str:
    return f"{share['share']:.1%}" if share["total"] else _NOTHING


def _tiles(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    tiles = [
        (f"{_plain(before['wrong'])} → {_plain(after['wrong'])}", "harmless messages refused"),
        (f"{_plain(before['harmful'])} → {_plain(after['harmful'])}", "harmful messages refused"),
        (str(len(report["triggers"])), "triggers"),
        (f"{report['trained']['rows']:,}", f"rows trained on ({report['trained']['mode']})"),
    ]
    return f"<div class=tiles>{''.join(f'<div class=tile><b>{a}</b><span>{b}</span></div>' for a, b in tiles)}</div>"


def _matrices(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    rows = [
        [
            name,
            *(Cell(one["matrix"][name][route], (name, route) in _WRONG) for one in (before, after) for route in ROUTES),
        ]
        for name in before["matrix"]
    ]
    head = ["the message is", *(f"{when}: {route}" for when in ("before", "after") for route in ROUTES)]
    shares = [
        [name, Raw(percent(before["groups"][name])), Raw(percent(after["groups"][name]))] for name in before["groups"]
    ]
    shares = [
        ["all harmless", Raw(percent(before["wrong"])), Raw(percent(after["wrong"]))],
        ["all harmful", Raw(percent(before["harmful"])), Raw(percent(after["harmful"]))],
        *shares,
    ]
    point = report["point"]
    return (
        f"<h2>Confusion matrix, before and after</h2>{table(head, rows)}<h3>Refused</h3>"
        f"{table(['messages', 'before', 'after'], shares)}<p class=soft>Measured on messages that nothing was trained "
        "on; intervals are 95 % (Wilson). The operating point was chosen on other rows "
        f"({point['rows']} of calibration); of those, harmful and refused: {percent(point['harmful before'])} before, "
        f"{percent(point['harmful after'])} after.</p>"
    )


def _triggers(found: list[dict[str, Any]]) -> str:
    head = "<h2>What triggers wrong refusals</h2>"
    if not found:
        return f"{head}<p class=soft>No word or frame stands out.</p>"
    rows = [
        [
            f"{one['part'].removeprefix(OPENING)} (opening)" if one["part"].startswith(OPENING) else one["part"],
            f"{one['z']:.2f}",
            f"{one['log_odds']:.2f}",
            str(one["texts"]),
            str(one["others"]),
            f"{one['fall']:.2f}" if one["tried"] else _NOTHING,
            f"{one['turned']} of {one['tried']}" if one["tried"] else _NOTHING,
        ]
        for one in found
    ]
    columns = [
        "word or frame",
        "z",
        "log-odds",
        "in wrongly refused",
        "in let through",
        "score falls by",
        "not refused",
    ]
    return (
        f"{head}<p>Log-odds with an informative Dirichlet prior, then occlusion: the part is left out, and the "
        "classifier asked again. In the order of the refusals that they account for.</p>"
        f"{table(columns, rows)}"
    )


def _set(found: dict[str, Any], records: dict[str, Any]) -> str:
    counts = [[name, str(count)] for name, count in found["counts"].items()]
    around = [
        [one["trigger"].removeprefix(OPENING), *(str(one[key]) for key in ("harmless", "harmful", "each", "templates"))]
        for one in found["around"]
    ]
    guard = [[name, str(count)] for name, count in found["guard"].items()]
    return (
        "<h2>What was added to the training</h2>"
        f"<p>{records['wrong_refusals']} wrong refusals and {records['missed_harm']} harms missed were on record, from "
        f"{records['keys']} keys.</p>{table(['rows', 'count'], counts)}<h3>Contrast rows around each trigger</h3>"
        f"{table(['trigger', 'harmless in the pool', 'harmful', 'taken of each', 'templates of each'], around)}"
        f"<h3>What became of the reports</h3>{table(['', 'count'], guard)}<p class=soft>A report is taken only in "
        "company of written rows of the other side, and only so many of one key and in all.</p>"
    )


def _model(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    rows = [[name, str(value)] for name, value in found.items() if not isinstance(value, dict)]
    shares = [
        [name, Raw(percent(found["before"][name])), Raw(percent(found["after"][name]))] for name in found["before"]
    ]
    return f"<h2>The model</h2>{table(['', ''], rows)}{table(['', 'before', 'after'], shares)}"


def _turned(found: dict[str, Any]) -> str:
    parts = []
    for title, name in (("Turned for the better", "better"), ("Turned for the worse", "worse")):
        rows = [[Text(one["text"]), one["truth"], one["before"], one["after"]] for one in found["examples"][name]]
        shown = table(["message", "it is", "before", "after"], rows) if rows else "<p class=soft>None.</p>"
        parts.append(f"<h2>{title}: {found[name]}</h2>{shown}")
    return "".join(parts)
