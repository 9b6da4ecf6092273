"""`hhh shadow report`: what would change if the candidate were put in force.

Two confusion matrices for each of the two: over the compared requests that somebody gave feedback on, and over the
standing probes, which are run through both here and now.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from gateway.app import triage_version
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.guard.loader import Loader
from gateway.guard.rails import Guard
from gateway.probes import suites
from gateway.probes.result import Result, matrix
from gateway.probes.runner import Prober
from gateway.record.audit.schema import COMPARISONS, DECISIONS
from gateway.record.audit.store import Row, Store
from gateway.record.metrics import Metrics
from gateway.report.figures import BLOCKED
from gateway.report.odds import share
from gateway.report.records import opinions
from gateway.report.run import with_store
from gateway.report.shadow_page import html
from gateway.shadow.candidate import Candidate

MOST_CHANGES = 200
Version = Mapping[str, str]


def write_shadow_report(config: Config, folder: Path, days: float) -> dict[str, Any]:
    """`report.html` and `report.json`. Raises `ConfigError` where there is no candidate, or one that does not load."""
    until = time.time()
    since = until - days * 86_400
    loader = Loader.of(config)
    candidate = Candidate.of(config, loader)
    if candidate is None:
        raise ConfigError("shadow: there is no candidate; set shadow.policy or shadow.weights")
    guards = loader.guard(config.policy), candidate.guard()
    live, tried = asyncio.run(_probe(config, guards, (triage_version(config), candidate.weights)))
    loader.close()
    candidate.close()
    compared: list[Row] = []
    said: list[Row] = []
    if config.audit.url is not None:
        compared, said = with_store(config, lambda store: _read(store, since, until))
    report = {
        "since": since,
        "until": until,
        "live": _version(live[0]),
        "candidate": _version(tried[0]),
        **compare(compared, said, _version(live[0]), _version(tried[0])),
        "probes": probed(live, tried),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(html(report), encoding="utf-8")
    return report


async def _probe(
    config: Config, guards: tuple[Guard, Guard], weights: tuple[str, str]
) -> tuple[list[Result], list[Result]]:
    probes = suites.load(config.probes.folder)
    runs = []
    for guard, version in zip(guards, weights, strict=True):
        await guard.warm()
        runs.append(await Prober(probes, lambda guard=guard: guard, Metrics(), version).run())  # type: ignore[misc]
        await guard.close()
    return runs[0], runs[1]


async def _read(store: Store, since: float, until: float) -> tuple[list[Row], list[Row]]:
    """Comparisons with the decisions that they are of, and what people said of decisions."""
    ours = [DECISIONS.c[name].label(f"live_{name}") for name in ("policy", "policy_version", "weights", "category")]
    theirs = [DECISIONS.c[name] for name in ("request_id", "decision", "text", "sha256")]
    query = (
        select(COMPARISONS, *ours, *theirs, DECISIONS.c.score.label("live_score"))
        .join(DECISIONS, DECISIONS.c.id == COMPARISONS.c.decision_id)
        .where(COMPARISONS.c.at >= since, COMPARISONS.c.at <= until)
        .order_by(COMPARISONS.c.id)
    )
    return await store.rows(query), await opinions(store, since, until)


def compare(rows: Sequence[Row], said: Sequence[Row], live: Version, candidate: Version) -> dict[str, Any]:
    """What came of requests under these two versions; what was compared of others is counted, and left out."""
    these = [row for row in rows if _of(row, "live_") == live and _of(row) == candidate]
    counts: dict[str, Counter[str]] = {}
    for row in these:
        counts.setdefault(row["live"], Counter())[row["candidate"]] += 1
    verdicts = {row["id"]: row for row in said}
    reported = [(row, _truth(verdicts[row["decision_id"]])) for row in these if row["decision_id"] in verdicts]
    changed = [row for row in these if row["live"] != row["candidate"]]
    return {
        "comparisons": {
            "total": len(these),
            "of_other_versions": len(rows) - len(these),
            "changed": share(len(changed), len(these)),
            "matrix": {name: dict(found) for name, found in sorted(counts.items())},
        },
        "feedback": {
            side: _confusion([(truth, row[side] == "refuse") for row, truth in reported])
            for side in ("live", "candidate")
        },
        "changes": [_change(row, verdicts) for row in changed[-MOST_CHANGES:][::-1]],
    }


def _truth(opinion: Row) -> str:
    """What the message was, by what somebody said of how it was treated."""
    right = "harmful" if opinion["decision"] in BLOCKED else "harmless"
    return {"wrong_refusal": "harmless", "missed_harm": "harmful"}.get(opinion["verdict"], right)


def _confusion(found: Sequence[tuple[str, bool]]) -> dict[str, dict[str, int]]:
    counts = Counter(found)
    return {
        truth: {"answered": counts[truth, False], "refused": counts[truth, True]} for truth in ("harmless", "harmful")
    }


def _change(row: Row, verdicts: Mapping[str, Row]) -> dict[str, Any]:
    names = ("request_id", "at", "text", "sha256", "live", "candidate", "live_category", "live_score", "category")
    opinion = verdicts.get(row["decision_id"])
    more = {"score": row["score"], "rail": row["rail"], "said": opinion["verdict"] if opinion is not None else ""}
    return {**{name: row[name] for name in names}, **more}


def probed(live: Sequence[Result], candidate: Sequence[Result]) -> dict[str, Any]:
    """The same probes through both, and those that are treated otherwise.

    What the live policy should do is expected of both: a candidate that lets a label through does not excuse itself.
    """
    then = {result.probe: result for result in live}
    candidate = [replace(now, expected=then[now.probe].expected) for now in candidate]
    turned = [(then[now.probe], now) for now in candidate if then[now.probe].observed != now.observed]
    return {
        "live": _summary(live),
        "candidate": _summary(candidate),
        "turned": [
            {"probe": now.probe, "suite": now.suite, "text": now.text, "expected": now.expected,
             "live": before.observed, "candidate": now.observed, "better": now.right}
            for before, now in turned
        ],
    }  # fmt: skip


def _summary(results: Sequence[Result]) -> dict[str, Any]:
    harmful = [result for result in results if result.expected == "refused"]
    return {
        "matrix": matrix(results),
        "wrongly_refused": share(sum(one.wrongly_refused for one in results), len(results) - len(harmful)),
        "missed": share(sum(one.missed for one in harmful), len(harmful)),
    }


def _version(result: Result) -> dict[str, str]:
    return {"policy": result.policy, "policy_version": result.policy_version, "weights": result.weights}


def _of(row: Row, prefix: str = "") -> dict[str, str]:
    return {name: row[f"{prefix}{name}"] for name in ("policy", "policy_version", "weights")}
