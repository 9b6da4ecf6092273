"""The augmented set: authored rows around the triggers, harmless and harmful as many; templates; guarded reports.

Templates are the last resort, for a trigger that too few rows have: it is set into rows of both sides in the same
forms, so that it says nothing about the side. Reports are never taken alone, and never many of one key: each brings
written rows of the other side along that share its words.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.repair.frames import OPENING, holds, is_frame
from finetune.repair.pool import Pool, Written, key, made
from finetune.repair.recipe import Contrast, Reports
from finetune.repair.records import HARMLESS, Record
from finetune.repair.triggers import Trigger
from finetune.triage.row import Row

_FORMS = ('"{part}": {text}', "{text} ({part})", "This is about {part}. {text}", "{text} By that I mean: {part}.")
_OPENED = ("{part}, well: {text}", "{part} ... {text}", "{part}: {text}")


@dataclass(slots=True)
class Augmented:
    """`rows` to train on. `around`: per trigger what was found. `guard`: what became of the reports."""

    rows: list[Row] = field(default_factory=list)
    around: list[dict[str, Any]] = field(default_factory=list)
    guard: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, kind: str) -> None:
        self.rows.append(row)
        self.counts[f"{kind}, {'harmless' if row.label in HARMLESS else 'harmful'}"] += 1


def augment(
    triggers: Sequence[Trigger], reports: Sequence[Record], pool: Pool, contrast: Contrast, guard: Reports, seed: int
) -> Augmented:
    """Contrast rows first, then what reports the guard lets in."""
    found = Augmented()
    taken: dict[str, Written] = {}
    draw = random.Random(seed)
    for trigger in triggers:
        found.around.append(_around(trigger.part, pool, contrast, taken, found, draw, triggers))
    _report(reports, pool, guard, taken, found)
    return found


def _around(
    part: str,
    pool: Pool,
    settings: Contrast,
    taken: dict[str, Written],
    found: Augmented,
    draw: random.Random,
    triggers: Sequence[Trigger],
) -> dict[str, Any]:
    sides = pool.around(part)
    count = min(settings.per_trigger, *map(len, sides))
    for side in sides:
        # What an earlier trigger took counts here too.
        have = sum(key(one.row.text) in taken for one in side)
        for one in side:
            if have < count and key(one.row.text) not in taken:
                taken[key(one.row.text)] = one
                found.add(one.row, "written")
                have += 1
    wanted = max(0, settings.least - count)
    if wanted:
        free = [one for one in pool.rows if not any(holds(one.row.text, other.part) for other in triggers)]
        for harmless in (True, False):
            side = [one for one in free if one.harmless == harmless]
            for one in draw.sample(side, min(wanted, len(side))):
                found.add(_planted(one.row, part, draw), "template")
    return {"trigger": part, "harmless": len(sides[0]), "harmful": len(sides[1]), "each": count, "templates": wanted}


def _planted(row: Row, part: str, draw: random.Random) -> Row:
    forms = _OPENED if is_frame(part) else _FORMS
    text = draw.choice(forms).format(part=part.removeprefix(OPENING), text=row.text)
    return made(text, str(row.label), str(row.category), "template")


def _report(
    reports: Sequence[Record], pool: Pool, settings: Reports, taken: dict[str, Written], found: Augmented
) -> None:
    """The guard: against a pool row that says otherwise, over the cap of a key, over the share, or alone: left out."""
    outcome: Counter[str] = Counter()
    of_key: Counter[str] = Counter()
    most = int(settings.share * len(found.rows))
    for one in reports:
        harmless = one.label in HARMLESS
        if one.by != "triage" or not one.wrong:
            continue
        outcome["reports"] += 1
        if key(one.text) in pool.labels:
            outcome["in the pool already" if pool.labels[key(one.text)] == harmless else "contradicted"] += 1
            continue
        if of_key[one.key] >= settings.per_key:
            outcome["over the cap of their key"] += 1
            continue
        if outcome["taken"] >= most:
            outcome["over their share of the set"] += 1
            continue
        company = pool.opposite(one.text, harmless, settings.companions, taken)
        if len(company) < settings.companions:
            outcome["without company"] += 1
            continue
        of_key[one.key] += 1
        outcome["taken"] += 1
        found.add(made(one.text, one.label, one.category, "report"), "report")
        for other in company:
            taken[key(other.row.text)] = other
            found.add(other.row, "company of a report")
    found.guard = dict(outcome)
