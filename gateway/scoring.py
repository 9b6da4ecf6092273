"""Rows scored offline as the gateway would decide them, for `hhh triage score`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from classifiers.cascade import Cascade
from gateway.config import Config
from gateway.forms.chat import new_segments
from gateway.guard import policy
from gateway.guard.plan import merge, units


def score_rows(config: Config, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One result per row `{"id", "text"}` or `{"id", "messages"}`. Raises `ValueError` naming a bad row."""
    found = policy.load(config.policies(), config.policy)
    triage = Cascade.load(config.triage.weights, threads=config.triage.threads)
    for number, row in enumerate(rows, 1):
        messages = row.get("messages") or [{"role": "user", "content": row.get("text")}]
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ValueError(f"row {number}: `messages` must be an array of objects")
        if "messages" not in row and not isinstance(row.get("text"), str):
            raise ValueError(f"row {number}: neither `text` nor `messages`")
        began = time.perf_counter()
        turns = units(new_segments(messages))
        plan = merge(found, turns, triage.score([unit.text for unit in turns]))
        yield {
            "id": row.get("id", number),
            "label": plan.label,
            "category": plan.category,
            "scores": {label: round(score, 5) for label, score in plan.scores.items()},
            "route": plan.route,
            "decision": plan.route,
            "tier": plan.tier,
            "ms": round((time.perf_counter() - began) * 1e3, 3),
        }
