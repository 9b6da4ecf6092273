"""What the admin API reads of the audit store. Every query is bounded, however much has been kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, case, func, select

from gateway.record.audit.schema import COMPARISONS, DECISIONS, FEEDBACK, PROBES
from gateway.record.audit.store import Row, Store

# The newest rows of a table that a count looks at.
MOST_COUNTED = 20_000
# More than any run of probes has.
_MOST_PROBES = 2_000


async def decisions(store: Store, kinds: Sequence[str], limit: int, before: str = "") -> list[Row]:
    """The newest decisions of these kinds, older than the one with the id `before`, the newest first.

    Each with `feedback`: the last word on it, or None. One query per kind, so that each goes along an index.
    """
    found: list[Row] = []
    for kind in kinds:
        query = select(DECISIONS).where(DECISIONS.c.decision == kind)
        if before:
            query = query.where(DECISIONS.c.id < before)
        found += await store.rows(query.order_by(DECISIONS.c.id.desc()).limit(limit))
    found = sorted(found, key=lambda row: str(row["id"]), reverse=True)[:limit]
    return await _with_feedback(store, found)


async def decisions_of(store: Store, request_id: str, limit: int) -> list[Row]:
    """The decisions with that request id, whatever came of them, the newest first."""
    query = select(DECISIONS).where(DECISIONS.c.request_id == request_id)
    return await _with_feedback(store, await store.rows(query.order_by(DECISIONS.c.id.desc()).limit(limit)))


async def _with_feedback(store: Store, found: Sequence[Row]) -> list[Row]:
    ids = [row["id"] for row in found]
    last = select(func.max(FEEDBACK.c.id)).where(FEEDBACK.c.decision_id.in_(ids)).group_by(FEEDBACK.c.decision_id)
    said = {row["decision_id"]: row for row in await store.rows(select(FEEDBACK).where(FEEDBACK.c.id.in_(last)))}
    return [{**row, "feedback": said.get(row["id"])} for row in found]


async def opinions(store: Store, days: float) -> list[Row]:
    """How many of the last days' last words, by `decision`, who refused (`by_model`), `verdict` and `category`."""
    newest = _newest(select(FEEDBACK.c.id, FEEDBACK.c.decision_id), FEEDBACK, days).subquery()
    last = select(func.max(newest.c.id)).group_by(newest.c.decision_id)
    by_model = case((DECISIONS.c.source.in_(("model", "upstream_filter")), 1), else_=0).label("by_model")
    keys = (DECISIONS.c.decision, by_model, FEEDBACK.c.verdict, DECISIONS.c.category)
    query = select(*keys, func.count().label("count")).join(FEEDBACK, FEEDBACK.c.decision_id == DECISIONS.c.id)
    return await store.rows(query.where(FEEDBACK.c.id.in_(last)).group_by(*keys))


async def last_probes(store: Store) -> list[Row]:
    """The results of the newest run, in their order."""
    rows = await store.rows(select(PROBES).order_by(PROBES.c.id.desc()).limit(_MOST_PROBES))
    return [row for row in rows if row["run"] == rows[0]["run"]][::-1]


async def comparisons(store: Store, policy: str, version: str, weights: str, days: float) -> list[Row]:
    """How many requests the live policy and this version of the candidate took how: `live`, `candidate`, `count`."""
    columns = [COMPARISONS.c[name] for name in ("live", "candidate", "policy", "policy_version", "weights")]
    newest = _newest(select(*columns), COMPARISONS, days).subquery()
    query = select(newest.c.live, newest.c.candidate, func.count().label("count")).where(
        newest.c.policy == policy, newest.c.policy_version == version, newest.c.weights == weights
    )
    return await store.rows(query.group_by(newest.c.live, newest.c.candidate))


def _newest(query: Select[Any], table: Any, days: float) -> Select[Any]:
    """Of the last days, the newest rows only. An id begins with its time, so the primary key finds them."""
    since = max(0, time.time_ns() - int(days * 86_400e9))
    return query.where(table.c.id >= f"{since:016x}").order_by(table.c.id.desc()).limit(MOST_COUNTED)
