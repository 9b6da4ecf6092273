"""The page of a shadow report: one HTML file that loads nothing."""

from __future__ import annotations

from typing import Any

from gateway.report.page import Cell, Raw, Text, day, minute, page, percent, table

_DECISIONS = ("allow", "advise", "refuse")
_OBSERVED = ("answered", "advised", "refused", "would_refuse", "failed")


def html(report: dict[str, Any]) -> str:
    """The whole page."""
    span = f"{day(report['since'])} to {day(report['until'])}"
    return page("What the candidate would change", span, _versions(report) + _compared(report) + _probes(report))


def _versions(report: dict[str, Any]) -> str:
    rows = [
        [side, found["policy"], found["policy_version"], found["weights"]]
        for side, found in (("live", report["live"]), ("candidate", report["candidate"]))
    ]
    return table(["", "policy", "version", "classifier"], rows)


def _compared(report: dict[str, Any]) -> str:
    found = report["comparisons"]
    head = "<h2>Requests</h2>"
    others = found["of_other_versions"]
    left_out = f" {others} comparisons of other versions are left out." if others else ""
    if not found["total"]:
        none = "The candidate has looked at none (<code>shadow.mode: observe</code>)."
        return f"{head}<p class=soft>{none}{left_out}</p>"
    columns = [*_DECISIONS, *(["failed"] if any("failed" in row for row in found["matrix"].values()) else [])]
    rows = [
        [f"live: {name}", *(Cell(counts.get(column, 0), column != name) for column in columns)]
        for name, counts in found["matrix"].items()
    ]
    return (
        f"{head}<p>Looked at: {found['total']}; decided otherwise before the model is called: "
        f"{percent(found['changed'])}.{left_out}</p>{table(['', *columns], rows)}"
        f"{_feedback(report['feedback'])}{_changes(report['changes'])}"
    )


def _feedback(found: dict[str, Any]) -> str:
    head = "<h2>Confusion matrices from feedback</h2>"
    if not any(count for counts in found["live"].values() for count in counts.values()):
        return f"{head}<p class=soft>Nobody has spoken of a request that was compared.</p>"
    wrong = {("harmless", "refused"), ("harmful", "answered")}
    rows = [
        [f"{side}: the message was {truth}", *(Cell(count, (truth, name) in wrong) for name, count in counts.items())]
        for side in ("live", "candidate")
        for truth, counts in found[side].items()
    ]
    return f"{head}{table(['', 'answered', 'refused'], rows)}"


def _changes(changes: list[dict[str, Any]]) -> str:
    if not changes:
        return "<p>Nothing would change.</p>"
    rows = [
        [
            Text(one["text"] if one["text"] is not None else f"(text not kept; {one['request_id']})"),
            f"{one['live']} ({one['live_category']} {one['live_score']:.2f})",
            f"{one['candidate']} ({one['category']} {one['score']:.2f})",
            one["said"],
            minute(one["at"]),
        ]
        for one in changes
    ]
    return f"<h2>What would change</h2>{table(['message', 'live', 'candidate', 'reported', 'when'], rows)}"


def _probes(report: dict[str, Any]) -> str:
    found = report["probes"]
    summaries = {side: found[side] for side in ("live", "candidate")}
    rows: list[list[Any]] = [
        ["harmless probes refused", *(Raw(percent(one["wrongly_refused"])) for one in summaries.values())],
        ["harmful probes missed", *(Raw(percent(one["missed"])) for one in summaries.values())],
    ]
    counted = [row for one in summaries.values() for row in one["matrix"].values()]
    seen = [name for name in _OBSERVED if any(row[name] for row in counted)]
    by_suite = [
        [f"{suite}, {side}", *(str(one["matrix"][suite][name]) for name in seen)]
        for suite in summaries["live"]["matrix"]
        for side, one in summaries.items()
    ]
    turned = [
        [Text(row["text"]), row["suite"], row["expected"], row["live"], row["candidate"],
         "better" if row["better"] else "worse"]
        for row in found["turned"]
    ]  # fmt: skip
    head = ["probe", "suite", "expected", "live", "candidate", ""]
    return (
        "<h2>Confusion matrices from probes</h2><p>The standing probes, run through both for this report.</p>"
        f"{table(['', 'live', 'candidate'], rows)}{table(['suite', *seen], by_suite)}"
        f"{table(head, turned) if turned else '<p>No probe is treated otherwise.</p>'}"
    )
