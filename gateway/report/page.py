"""The page of an audit report: one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from gateway.report import charts

_STYLE = (
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

_NOTHING = "-"


def html(report: dict[str, Any]) -> str:
    """The whole page."""
    span = f"{day(report['since'])} to {day(report['until'])}"
    content = "".join(
        [
            _tiles(report),
            _feedback(report["feedback"]),
            _probes(report["probes"]),
            _over_time(report),
            _words(report["words"]),
            _examples(report["examples"]),
            _change(report["change"]),
        ]
    )
    return page("Refusals, right and wrong", span, content)


def page(title: str, span: str, content: str) -> str:
    """A page with a title and the time that it speaks of."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width,initial-scale=1'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p class=soft>{escape(span)} (UTC)</p>{content}</html>"
    )


def percent(share: dict[str, Any]) -> str:
    """A share with its interval and counts."""
    if not share["total"]:
        return _NOTHING
    return (
        f"{share['share']:.1%} <span class=soft>({share['low']:.1%} to {share['high']:.1%}; "
        f"{share['hits']} of {share['total']})</span>"
    )


def _tiles(report: dict[str, Any]) -> str:
    totals, probes, feedback = report["totals"], report["probes"], report["feedback"]
    tiles = [
        (f"{totals['requests']:,}", "requests decided"),
        (_plain(totals["refused"]), "refused by the gateway"),
        (_plain(totals["model_refused"]), "refused by the model itself"),
        (_plain(probes["wrongly_refused"]), "harmless probes refused, last run"),
        (_plain(probes["missed"]), "harmful probes missed, last run"),
        (str(feedback["verdicts"].get("wrong_refusal", 0)), "wrong refusals reported"),
    ]
    if totals["would_refuse"]["hits"]:
        tiles.append((_plain(totals["would_refuse"]), "would be refused (shadow mode)"))
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
        f"{head}<p>The last of {found['runs']} runs, {minute(found['at'])}. Harmless probes refused: "
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
                minute(row["at"]),
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
        ["classifier", before["weights"] or _NOTHING, after["weights"] or _NOTHING],
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
        f"{head}<p>{escape(found['policy'])}: {what}, {minute(found['at'])}.</p>"
        f"{table(['', 'before', 'after'], rows)}"
        f"<h3>Probes that are treated otherwise now</h3>{probes}"
    )


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


def _plain(share: dict[str, Any]) -> str:
    return f"{share['share']:.1%}" if share["total"] else _NOTHING


def day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %B %Y %H:%M")


def minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M")
