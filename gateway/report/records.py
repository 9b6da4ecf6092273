"""What a report reads of the audit store: decisions counted in the database, what people said row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, case, func, literal, select

from gateway.record.audit.schema import DECISIONS, FEEDBACK, PROBES
from gateway.record.audit.store import Store

Row = Mapping[str, Any]

# Enough texts to tell words apart by; the newest.
MOST_TEXTS = 20_000
# About how many points a curve over time has.
_POINTS = 48
_STEPS = (300, 900, 3_600, 3 * 3_600, 6 * 3_600, 86_400, 7 * 86_400)


@dataclass(frozen=True, slots=True)
class Records:
    """`timeline`: counts per step of `step_seconds`, decision, category and source. `versions`: the same per policy,
    version and weights, with the first and last time. `opinions`: each decision that somebody spoke of, with the last
    word on it. `runs`: the first and last time of each probe run. `answered`: texts that were let through.
    """

    since: float
    until: float
    step_seconds: int
    timeline: list[Row]
    versions: list[Row]
    opinions: list[Row]
    runs: list[Row]
    probes: list[Row]
    answered: list[str]


async def read(store: Store, since: float, until: float) -> Records:
    """Everything between two times, in seconds since 1970."""
    inside = and_(DECISIONS.c.at >= since, DECISIONS.c.at <= until)
    edges = await store.rows(select(func.min(DECISIONS.c.at), func.max(DECISIONS.c.at)).where(inside))
    first, last = edges[0].values()
    span = (last or until) - (first or since)
    step = next((step for step in _STEPS if span / step <= _POINTS), _STEPS[-1])
    runs = await _runs(store, since, until)
    return Records(
        first or since,
        until,
        step,
        await _counted(store, inside, bucket=func.round(DECISIONS.c.at / literal(float(step), Float) - 0.5)),
        await _counted(
            store,
            inside,
            policy=DECISIONS.c.policy,
            policy_version=DECISIONS.c.policy_version,
            weights=DECISIONS.c.weights,
        ),
        await opinions(store, since, until),
        runs,
        await _probes(store, _wanted(runs)),
        await _answered(store, inside),
    )


async def _counted(store: Store, inside: ColumnElement[bool], **by: ColumnElement[Any]) -> list[Row]:
    named = [column.label(name) for name, column in by.items()]
    category = case((DECISIONS.c.decision.in_(("block", "would_block")), DECISIONS.c.category), else_="").label(
        "category"
    )
    model = case((DECISIONS.c.source.in_(("model", "upstream_filter")), DECISIONS.c.source), else_="").label("source")
    keys = [*named, DECISIONS.c.decision, category, model]
    query = select(
        *keys,
        func.count().label("count"),
        func.min(DECISIONS.c.at).label("first"),
        func.max(DECISIONS.c.at).label("last"),
    )
    return await store.rows(query.where(inside).group_by(*keys))


async def opinions(store: Store, since: float, until: float) -> list[Row]:
    """Decisions that somebody spoke of, with the last word on each: `verdict`, `note`, `said` (a category or "")."""
    query = (
        select(DECISIONS, FEEDBACK.c.verdict, FEEDBACK.c.note, FEEDBACK.c.category.label("said"))
        .join(FEEDBACK, FEEDBACK.c.decision_id == DECISIONS.c.id)
        .where(DECISIONS.c.at >= since, DECISIONS.c.at <= until)
        .order_by(FEEDBACK.c.id)
    )
    return list({row["id"]: row for row in await store.rows(query)}.values())


async def _runs(store: Store, since: float, until: float) -> list[Row]:
    by = [PROBES.c.run, PROBES.c.policy, PROBES.c.policy_version, PROBES.c.weights]
    harmless = PROBES.c.expected != "refused"
    refused = PROBES.c.observed.in_(("refused", "would_refuse"))
    query = select(
        *by,
        func.min(PROBES.c.at).label("at"),
        func.sum(case((harmless, 1), else_=0)).label("harmless"),
        func.sum(case((and_(harmless, refused), 1), else_=0)).label("wrong"),
        func.sum(case((harmless, 0), else_=1)).label("harmful"),
        func.sum(case((and_(~harmless, PROBES.c.observed.in_(("answered", "advised"))), 1), else_=0)).label("missed"),
    )
    query = query.where(PROBES.c.at >= since, PROBES.c.at <= until).group_by(*by)
    return sorted(await store.rows(query), key=lambda row: float(row["at"]))


def _wanted(runs: list[Row]) -> list[str]:
    """The last run, and the last one of what was in force before it."""
    if not runs:
        return []
    last = runs[-1]
    before = [run for run in runs if _version(run) != _version(last) and run["policy"] == last["policy"]]
    return [run["run"] for run in (*before[-1:], last)]


def _version(row: Row) -> tuple[str, str]:
    return row["policy_version"], row["weights"]


async def _probes(store: Store, runs: list[str]) -> list[Row]:
    return await store.rows(select(PROBES).where(PROBES.c.run.in_(runs)).order_by(PROBES.c.id))


async def _answered(store: Store, inside: ColumnElement[bool]) -> list[str]:
    let_through = DECISIONS.c.decision.in_(("allow", "advise", "modify"))
    query = select(DECISIONS.c.text).where(inside, let_through, DECISIONS.c.text.is_not(None))
    return [row["text"] for row in await store.rows(query.order_by(DECISIONS.c.id.desc()).limit(MOST_TEXTS))]
