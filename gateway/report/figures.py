"""The figures of a report, from its records: what `report.json` holds, and what the page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from gateway.report.odds import ordered, outstanding, share
from gateway.report.records import Records, Row

BLOCKED = ("block", "would_block")
LET_THROUGH = ("allow", "advise", "modify")
MOST_CATEGORIES = 7
MOST_EXAMPLES = 25


def figures(records: Records) -> dict[str, Any]:
    """Plain values only."""
    probes = _by_run(records)
    last = probes[-1] if probes else []
    return {
        "since": records.since,
        "until": records.until,
        "totals": totals(records.timeline),
        "feedback": feedback(records.opinions),
        "probes": _probed(last, records),
        "timeline": timeline(records),
        "words": trigger_words(records, last),
        "examples": {
            verdict: [_example(row) for row in records.opinions if row["verdict"] == verdict][-MOST_EXAMPLES:][::-1]
            for verdict in ("wrong_refusal", "missed_harm")
        },
        "change": change(records, probes),
    }


def totals(counted: Sequence[Row]) -> dict[str, Any]:
    """Requests that got as far as a decision, and the shares that were refused."""
    by = Counter[str]()
    model = 0
    for row in counted:
        by[row["decision"]] += row["count"]
        model += row["count"] if row["source"] == "model" else 0
    requests = sum(by.values()) - by["cancelled"] - by["error"]
    return {
        "decisions": dict(sorted(by.items())),
        "requests": requests,
        "refused": share(by["block"], requests),
        "would_refuse": share(by["would_block"], requests),
        "model_refused": share(model, requests),
    }


def _treated(row: Row) -> str:
    if row["decision"] in BLOCKED:
        return "refused"
    return "refused_by_model" if row["source"] == "model" else "answered"


def feedback(opinions: Sequence[Row]) -> dict[str, Any]:
    """The confusion matrix of what people spoke of: what the message was, and how it was treated.

    A verdict says what the message was: `wrong_refusal` that it was harmless, `missed_harm` that it was harmful,
    `correct` that it was treated as it should be. People speak up when they are annoyed: no share of all traffic.
    """
    matrix = {truth: dict.fromkeys(("answered", "refused_by_model", "refused"), 0) for truth in ("harmless", "harmful")}
    for row in opinions:
        treated = _treated(row)
        right = "harmful" if treated == "refused" else "harmless"
        truth = {"wrong_refusal": "harmless", "missed_harm": "harmful"}.get(row["verdict"], right)
        matrix[truth][treated] += 1
    refused = matrix["harmless"]["refused"] + matrix["harmful"]["refused"]
    return {
        "verdicts": dict(Counter(row["verdict"] for row in opinions)),
        "matrix": matrix,
        "refusals_that_were_wrong": share(matrix["harmless"]["refused"], refused),
        "wrong_by_category": dict(
            Counter(
                row["category"] for row in opinions if row["verdict"] == "wrong_refusal" and row["decision"] in BLOCKED
            ).most_common()
        ),
    }


def _by_run(records: Records) -> list[list[Row]]:
    runs: dict[str, list[Row]] = {}
    for row in records.probes:
        runs.setdefault(row["run"], []).append(row)
    return sorted(runs.values(), key=lambda rows: float(rows[0]["at"]))


def wrongly_refused(row: Row) -> bool:
    return row["expected"] != "refused" and row["observed"] in ("refused", "would_refuse")


def missed(row: Row) -> bool:
    return row["expected"] == "refused" and row["observed"] in ("answered", "advised")


def _probed(last: Sequence[Row], records: Records) -> dict[str, Any]:
    matrix: dict[str, dict[str, int]] = {}
    expected: dict[str, set[str]] = {}
    for row in last:
        expected.setdefault(row["suite"], set()).add(row["expected"])
        suite = matrix.setdefault(row["suite"], dict.fromkeys(("answered", "advised", "refused"), 0))
        suite[row["observed"]] = suite.get(row["observed"], 0) + 1
    harmless = [row for row in last if row["expected"] != "refused"]
    harmful = [row for row in last if row["expected"] == "refused"]
    return {
        "runs": len(records.runs),
        "at": float(last[0]["at"]) if last else None,
        "matrix": matrix,
        "expected": {suite: sorted(names) for suite, names in expected.items()},
        "wrongly_refused": share(sum(map(wrongly_refused, harmless)), len(harmless)),
        "missed": share(sum(map(missed, harmful)), len(harmful)),
        "wrong": [_probe(row) for row in last if wrongly_refused(row)],
        "missed_rows": [_probe(row) for row in last if missed(row)],
        "history": [
            {"at": float(run["at"]), "wrong": share(run["wrong"], run["harmless"]), "weights": run["weights"],
             "policy_version": run["policy_version"], "missed": share(run["missed"], run["harmful"])}
            for run in records.runs
        ],
    }  # fmt: skip


def _probe(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("probe", "suite", "text", "observed", "category", "score", "rail")}


def timeline(records: Records) -> dict[str, Any]:
    """Per step of time: requests, and the share refused by each of the commonest categories."""
    step = records.step_seconds
    requests, refused = Counter[int](), Counter[tuple[int, str]]()
    categories = Counter[str]()
    for row in records.timeline:
        bucket = round(row["bucket"])
        if row["decision"] not in ("error", "cancelled"):
            requests[bucket] += row["count"]
        if row["decision"] in BLOCKED:
            refused[bucket, row["category"]] += row["count"]
            categories[row["category"]] += row["count"]
    shown = ordered(list(categories), categories, MOST_CATEGORIES)
    buckets = range(min(requests), max(requests) + 1) if requests else range(0)
    other = [
        sum(count for (at, name), count in refused.items() if at == bucket and name not in shown) for bucket in buckets
    ]
    series = {name: [refused[bucket, name] for bucket in buckets] for name in shown}
    if any(other):
        series["other"] = other
    return {
        "step_seconds": step,
        "start": [bucket * step for bucket in buckets],
        "requests": [requests[bucket] for bucket in buckets],
        "refused": series,
    }


def trigger_words(records: Records, last: Sequence[Row]) -> dict[str, Any]:
    """Words that stand out in what was wrongly refused, traffic and probes, against what was let through."""
    wrong = [row["text"] for row in records.opinions if row["verdict"] == "wrong_refusal" and row["text"]]
    probes_wrong = [row["text"] for row in last if wrongly_refused(row)]
    right = [row["text"] for row in last if row["expected"] != "refused" and not wrongly_refused(row)]
    texts = list(dict.fromkeys([*wrong, *probes_wrong]))
    others = list(dict.fromkeys(text for text in [*records.answered, *right] if text not in set(texts)))
    return {
        "wrong_texts": len(texts),
        "other_texts": len(others),
        "words": [asdict(one) for one in outstanding(texts, others, least=1 if len(texts) < 12 else 2)],
    }


def _example(row: Row) -> dict[str, Any]:
    names = ("request_id", "at", "text", "decision", "category", "score", "stage", "rail", "note", "said", "sha256")
    return {name: row[name] for name in names}


def change(records: Records, probes: Sequence[Sequence[Row]]) -> dict[str, Any] | None:
    """What the last change of policy or classifier did: shares before and after, and the probes that turned."""
    versions: dict[tuple[str, str, str], list[Row]] = {}
    for row in records.versions:
        versions.setdefault((row["policy"], row["policy_version"], row["weights"]), []).append(row)
    for run in records.runs:
        versions.setdefault((run["policy"], run["policy_version"], run["weights"]), [])
    first = {key: _first(key, rows, records.runs) for key, rows in versions.items()}
    after = max(first, key=lambda key: first[key], default=None)
    earlier = [key for key in first if after is not None and key[0] == after[0] and key != after]
    if after is None or not earlier:
        return None
    before = max(earlier, key=lambda key: first[key])
    return {
        "at": first[after],
        "policy": after[0],
        "before": _state(before, versions[before], records.opinions),
        "after": _state(after, versions[after], records.opinions),
        "turned": _turned(probes, before, after),
    }


def _first(key: tuple[str, str, str], rows: Iterable[Row], runs: Iterable[Row]) -> float:
    times = [float(row["first"]) for row in rows]
    times += [float(run["at"]) for run in runs if (run["policy"], run["policy_version"], run["weights"]) == key]
    return min(times)


def _state(key: tuple[str, str, str], rows: Sequence[Row], opinions: Sequence[Row]) -> dict[str, Any]:
    found = totals(rows)
    categories = Counter[str]()
    for row in rows:
        if row["decision"] in BLOCKED:
            categories[row["category"]] += row["count"]
    mine = [row for row in opinions if (row["policy"], row["policy_version"], row["weights"]) == key]
    return {
        "policy_version": key[1],
        "weights": key[2],
        "requests": found["requests"],
        "refused": found["refused"],
        "categories": {name: share(count, found["requests"]) for name, count in categories.most_common()},
        "wrong_refusals": sum(row["verdict"] == "wrong_refusal" for row in mine),
        "missed_harm": sum(row["verdict"] == "missed_harm" for row in mine),
    }


def _turned(
    probes: Sequence[Sequence[Row]], before: tuple[str, str, str], after: tuple[str, str, str]
) -> list[dict[str, Any]]:
    """Probes that are treated otherwise now."""

    def of(key: tuple[str, str, str]) -> dict[str, Row]:
        rows = [row for run in probes for row in run]
        return {row["probe"]: row for row in rows if (row["policy"], row["policy_version"], row["weights"]) == key}

    then, now = of(before), of(after)
    return [
        {"probe": id, "text": row["text"], "expected": row["expected"], "before": then[id]["observed"],
         "after": row["observed"], "better": row["observed"] == row["expected"]}
        for id, row in now.items()
        if id in then and then[id]["observed"] != row["observed"]
    ]  # fmt: skip
