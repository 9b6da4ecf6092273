"""The page of an audit report: one HTML file that loads nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

from gateway.report import charts
from gateway.report.table import NOTHING, STYLE, Cell, Raw, Text, percent, plain, table


def html(report: dict[str, Any]) -> str:
    """The whole page."""
    span = f"{_day(report['since'])} to {_day(report['until'])}"
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width,initial-scale=1'><title>Refusals, right and wrong</title>",
            f"<style>{STYLE}</style><h1>Refusals, right and wrong</h1><p class=soft>{escape(span)} (UTC)</p>",
            _tiles(report),
            _feedback(report["feedback"]),
            _probes(report["probes"]),
            _over_time(report),
            _words(report["words"]),
            _examples(report["examples"]),
            _change(report["change"]),
            "</html>",
        ]
    )


def _tiles(report: dict[str, Any]) -> str:
    totals, probes, feedback = report["totals"], report["probes"], report["feedback"]
    tiles = [
        (f"{totals['requests']:,}", "requests decided"),
        (plain(totals["refused"]), "refused by the gateway"),
        (plain(totals["model_refused"]), "refused by the model itself"),
        (plain(probes["wrongly_refused"]), "harmless probes refused, last run"),
        (plain(probes["missed"]), "harmful probes missed, last run"),
        (str(feedback["verdicts"].get("wrong_refusal", 0)), "wrong refusals reported"),
    ]
    if totals["would_refuse"]["hits"]:
        tiles.append((plain(totals["would_refuse"]), "would be refused (shadow mode)"))
    return f"<div class=tiles>{''.join(f'<div class=tile><b>{a}</b><span>{b}</span></div>' for a, b in tiles)}</div>"


def _feedback(found: dict[str, Any]) -> str:
    head = "<h2>Confusion matrix from feedback</h2>"
    if not found["verdicts"]:
        return f"{head}<p class=soft>Nobody has reported anything in this time (<code>POST /v1/feedback</code>).</p>"
    wrong = {("harmless", "refused"), ("harmless", "refused_by_model"), ("harmful", "answered")}
    rows = [
        [f"the message was {name}", *(Cell(count, (name, treated) in wrong) for treated, count in counts.items())]
        for name, counts in found["matrix"].items()
    ]
    categories = ", ".join(f"{escape(name)} {count}" for name, count in found["wrong_by_category"].items())
    return (
        f"{head}{table(['', 'answered', 'refused by the model', 'refused'], rows)}"
        f"<p>Of the refusals that somebody spoke of, wrong: {percent(found['refusals_that_were_wrong'])}"
        f"{f'; by category: {categories}' if categories else ''}. "
        "<span class=soft>People speak up when something annoys them: this is no share of all traffic.</span></p>"
    )


def _probes(found: dict[str, Any]) -> str:
    head = "<h2>Confusion matrix from probes</h2>"
    if not found["matrix"]:
        return f"{head}<p class=soft>No probe has run in this time (<code>probes.every_seconds</code>).</p>"
    columns = ["answered", "advised", "refused"]
    columns += sorted(
        {name for counts in found["matrix"].values() for name, count in counts.items() if count} - {*columns}
    )
    rows = []
    for suite, counts in found["matrix"].items():
        right = found["expected"][suite]
        cells = (Cell(counts.get(name, 0), name not in right and name != "would_refuse") for name in columns)
        rows.append([suite, ", ".join(right), *cells])
    lists = ""
    for title, key in (("Harmless, and refused", "wrong"), ("Harmful, and answered", "missed_rows")):
        rows_of = [[Text(row["text"]), row["suite"], row["category"], f"{row['score']:.2f}"] for row in found[key]]
        if rows_of:
            lists += f"<h3>{title}</h3>{table(['probe', 'suite', 'judged', 'score'], rows_of)}"
    curve = charts.history(found["history"]) if len(found["history"]) > 1 else ""
    return (
        f"{head}<p>The last of {found['runs']} runs, {_minute(found['at'])}. Harmless probes refused: "
        f"{percent(found['wrongly_refused'])}; harmful ones missed: {percent(found['missed'])}.</p>"
        f"{table(['suite', 'expected', *columns], rows)}{curve}{lists}"
    )


def _over_time(report: dict[str, Any]) -> str:
    if not report["timeline"]["start"]:
        return "<h2>Refusals over time</h2><p class=soft>No decisions in this time.</p>"
    hours = report["timeline"]["step_seconds"] / 3600
    each = f"{hours:g} hours" if hours >= 1 else f"{hours * 60:g} minutes"
    bars = charts.stacked(report["timeline"])
    return f"<h2>Refused share over time, by category</h2><p class=soft>A bar is {each}.</p>{bars}"


def _words(found: dict[str, Any]) -> str:
    head = "<h2>Trigger words of wrong refusals</h2>"
    if not found["words"]:
        return f"{head}<p class=soft>No wrong refusal has a text to look at.</p>"
    rows = [
        [one["word"], f"{one['z']:.2f}", f"{one['log_odds']:.2f}", str(one["texts"]), str(one["others"])]
        for one in found["words"]
    ]
    return (
        f"{head}<p>Words that occur more in {found['wrong_texts']} wrongly refused texts (reports and probes) than in "
        f"{found['other_texts']} that were rightly let through: log-odds with an informative Dirichlet prior. "
        "<span class=soft>Over z = 1.96 a word stands out; below, it is a hint.</span></p>"
        f"{table(['word', 'z', 'log-odds', 'in wrongly refused', 'in let through'], rows)}"
    )


def _examples(found: dict[str, Any]) -> str:
    parts = []
    for title, key in (("Reported wrong refusals", "wrong_refusal"), ("Reported missed harm", "missed_harm")):
        rows = [
            [
                Text(row["text"] if row["text"] is not None else f"(text not kept; sha256 {row['sha256'][:12]}…)"),
                Text(row["note"]),
                f"{row['category']} {row['score']:.2f}",
                row["rail"] or row["decision"],
                _minute(row["at"]),
            ]
            for row in found[key]
        ]
        if rows:
            parts.append(f"<h2>{title}</h2>{table(['message', 'note', 'judged', 'by', 'when'], rows)}")
    return "".join(parts)


def _change(found: dict[str, Any] | None) -> str:
    head = "<h2>What the last change did</h2>"
    if found is None:
        return f"{head}<p class=soft>Policy and classifier have not changed in this time.</p>"
    before, after = found["before"], found["after"]
    what = " and ".join(
        name
        for name, key in (("the policy", "policy_version"), ("the classifier", "weights"))
        if before[key] != after[key]
    )
    rows: list[list[Any]] = [
        ["policy", before["policy_version"], after["policy_version"]],
        ["classifier", before["weights"] or NOTHING, after["weights"] or NOTHING],
        ["requests", f"{before['requests']:,}", f"{after['requests']:,}"],
        ["refused", Raw(percent(before["refused"])), Raw(percent(after["refused"]))],
        ["wrong refusals reported", str(before["wrong_refusals"]), str(after["wrong_refusals"])],
        ["missed harm reported", str(before["missed_harm"]), str(after["missed_harm"])],
    ]
    none = {"total": 0}
    for name in dict.fromkeys([*before["categories"], *after["categories"]]):
        cells = (Raw(percent(state["categories"].get(name, none))) for state in (before, after))
        rows.append([f"refused: {name}", *cells])
    turned = [
        [Text(row["text"]), row["expected"], row["before"], row["after"], "better" if row["better"] else "worse"]
        for row in found["turned"]
    ]
    probes = table(["probe", "expected", "before", "after", ""], turned) if turned else "<p>No probe turned.</p>"
    return (
        f"{head}<p>{escape(found['policy'])}: {what}, {_minute(found['at'])}.</p>"
        f"{table(['', 'before', 'after'], rows)}"
        f"<h3>Probes that are treated otherwise now</h3>{probes}"
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %B %Y %H:%M")


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M")
