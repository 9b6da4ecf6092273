"""Rows scored offline as the gateway would decide them, for `hhh triage score`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from classifiers.cascade import Cascade
from classifiers.explain import explain
from gateway.config import Config
from gateway.forms.chat import CHAT
from gateway.guard import others, policy
from gateway.guard.plan import merge, units


def score_rows(config: Config, rows: Sequence[Mapping[str, Any]], words: int = 0) -> Iterator[dict[str, Any]]:
    """One result per row `{"id", "text"}` or `{"id", "messages"}`; with the `words` that moved the score most, if any.

    Raises `ValueError` naming a bad row.
    """
    triage = Cascade.load(config.triage.weights, config.triage.threads, others.build(config.triage))
    found = policy.load(config.policies(), config.policy, triage.operating_points)
    for number, row in enumerate(rows, 1):
        messages = row.get("messages") or [{"role": "user", "content": row.get("text")}]
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ValueError(f"row {number}: `messages` must be an array of objects")
        if "messages" not in row and not isinstance(row.get("text"), str):
            raise ValueError(f"row {number}: neither `text` nor `messages`")
        began = time.perf_counter()
        turns = units(CHAT.segments({"messages": messages}), CHAT.earlier({"messages": messages}))
        plan = merge(found, turns, triage.score(turns))
        taken = time.perf_counter() - began
        result = {
            "id": row.get("id", number),
            "label": plan.label,
            "category": plan.category,
            "scores": {label: round(score, 5) for label, score in plan.scores.items()},
            "route": plan.route,
            "decision": plan.route,
            "tier": plan.tier,
            "language": plan.language,
            "ms": round(taken * 1e3, 3),
        }
        if words and plan.label != "benign":
            heavy = (one for turn in turns for one in explain(triage.reader, turn, plan.label, words))
            result["words"] = [asdict(one) for one in sorted(heavy, key=lambda one: -one.weight)[:words]]
        yield result
