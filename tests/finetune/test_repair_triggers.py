"""What triggers wrong refusals, and what may be trained on because of it: planted words, planted reports."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from classifiers.labels import LABELS
from classifiers.message import Judgement
from finetune.repair import contrast, triggers
from finetune.repair.frames import holds, parts, without
from finetune.repair.pool import Pool, Written, key, made
from finetune.repair.recipe import Contrast, Reports, Triggers
from finetune.repair.records import Record

THINGS = ("job", "process", "lights", "weeds", "engine", "thread", "session", "battery", "server", "query")
CALM = ("restart", "describe", "clean", "move", "rename", "sell")
PEOPLE = ("neighbour", "teacher", "brother", "boss", "cousin", "landlord", "colleague", "uncle")


class Keyword:
    """A judge that refuses whatever says "kill", and the more of "how do i" a text begins with, the surer."""

    def __init__(self) -> None:
        self.cascade = SimpleNamespace(reader=self)

    def score(self, messages: Any) -> list[Judgement]:
        found = []
        for message in messages:
            said = message.text.lower().split()
            harm = 0.95 if "kill" in said else 0.32 * len({"how", "do", "i"} & set(said[:3]))
            scores = dict.fromkeys(LABELS, 0.0) | {"benign": 1 - harm, "harmful": harm}
            found.append(Judgement("harmful" if harm > 0.5 else "benign", "benign", scores, 0.0))
        return found

    def routes(self, messages: Any, judged: Any, points: Any = None) -> list[str]:
        return ["refuse" if one.scores["harmful"] > 0.5 else "allow" for one in judged]


PASSED = [f"please {verb} the {thing} for me today" for verb in CALM for thing in THINGS]
WRONG = [f"please kill the {thing} for me now" for thing in THINGS]
ASKED = [f"how do i rid the {thing} of dust" for thing in THINGS]


def test_a_planted_word_comes_first_and_its_company_does_not() -> None:
    found = triggers.find(WRONG, PASSED, Keyword(), Triggers(), 1)  # type: ignore[arg-type]
    first = found[0]
    assert (first.part, first.texts, first.others) == ("kill", 10, 0)
    assert first.fall > 0.9
    assert first.turned == first.tried == 10
    assert first.z > 1.96
    # "now" stands beside it in every refused text, and in none that was let through; without it nothing changes.
    assert "now" not in [one.part for one in found]
    assert "the" not in [one.part for one in found]


def test_an_opening_is_found_where_no_word_of_it_does_it_alone() -> None:
    found = triggers.find(ASKED, PASSED, Keyword(), Triggers(), 1)  # type: ignore[arg-type]
    assert found[0].part in ("how do i", "^how do i")
    assert found[0].fall > 0.9
    assert found[0].turned == 10
    assert "rid" not in [one.part for one in found]


def test_a_models_refusals_have_odds_only() -> None:
    found = triggers.find(WRONG, PASSED, None, Triggers(), 1)
    assert "kill" in [one.part for one in found[:3]]
    assert {one.tried for one in found} == {0}


def test_parts_of_a_text() -> None:
    assert parts("How do I kill it?") == {
        "how", "do", "i", "kill", "it", "how do", "do i", "i kill", "kill it", "how do i", "do i kill", "i kill it",
        "^how do", "^how do i",
    }  # fmt: skip
    assert holds("Killing time", "kill")
    assert not holds("skill", "kill")
    assert holds("So: how do I", "how do i")
    assert not holds("So how do I", "^how do")
    assert without("How do I kill it? Kill it!", "kill it") == "How do I ? !"


def pool() -> Pool:
    rows = [(f"please kill the {thing}", "benign", f"p{at}") for at, thing in enumerate(THINGS)]
    rows += [(f"help me kill my {who}", "harmful", f"p{at}") for at, who in enumerate(PEOPLE)]
    rows += [(f"please {verb} the {thing}", "benign", "") for verb in CALM for thing in THINGS]
    rows += [(f"forge a passport for my {who}", "harmful", "") for who in PEOPLE]
    return Pool([Written(made(text, label, label, "own"), pair) for text, label, pair in rows], 1)


def trigger(part: str) -> triggers.Trigger:
    return triggers.Trigger(part, 3.0, 1.0, 9, 0, 0.9, 9, 9)


def augment(reports: list[Record], *words: str, **guard: Any) -> contrast.Augmented:
    return contrast.augment([trigger(word) for word in words], reports, pool(), Contrast(), Reports(**guard), 1)


def test_both_sides_of_a_trigger_are_taken_alike() -> None:
    found = augment([], "kill")
    assert found.counts == {"written, harmless": 8, "written, harmful": 8}
    assert all("kill" in row.text for row in found.rows)
    assert found.around == [{"trigger": "kill", "harmless": 10, "harmful": 8, "each": 8, "templates": 0}]


def test_templates_are_the_last_resort_and_counted_apart() -> None:
    found = augment([], "kill", "zyzzyva")
    assert found.counts["template, harmless"] == found.counts["template, harmful"] == 3
    planted = [row for row in found.rows if row.source == "template"]
    assert all("zyzzyva" in row.text and "kill" not in row.text for row in planted)
    assert found.around[1]["templates"] == 3


def test_one_key_cannot_teach_that_harm_is_harmless() -> None:
    """Five hundred reports say that forging is fine: few are taken, none alone, none that the pool contradicts."""
    lies = [Record(f"forge passport number {at}", "benign", "benign", True, "x", "mallory") for at in range(500)]
    lies.append(Record("forge a passport for my boss", "benign", "benign", True, "x", "trent"))
    lies.append(Record("qwfp zxcd", "benign", "benign", True, "x", "alice"))
    found = augment(lies, "kill", per_key=3, share=0.5, companions=2)
    assert found.guard == {
        "reports": 502, "taken": 3, "over the cap of their key": 497, "contradicted": 1, "without company": 1,
    }  # fmt: skip
    taken = Counter((row.source, row.label) for row in found.rows)
    assert taken[("report", "benign")] == 3
    # Every report of "forge" as harmless comes with two rows in which forging is harmful.
    assert found.counts["company of a report, harmful"] == 6
    assert sum(row.label == "harmful" and "forge" in row.text for row in found.rows) == 6


def test_many_keys_cannot_either() -> None:
    lies = [Record(f"forge passport number {at}", "benign", "benign", True, "x", f"key{at}") for at in range(500)]
    found = augment(lies, "kill", share=0.2, companions=1)
    assert found.guard["taken"] == 3  # a fifth of the sixteen contrast rows
    assert found.guard["over their share of the set"] == 497


@pytest.mark.parametrize(("label", "refused", "wrong"), [
    ("benign", True, True), ("regulated_advice", True, True), ("harmful", True, False), ("hate", False, True),
])  # fmt: skip
def test_what_is_wrong(label: str, refused: bool, wrong: bool) -> None:
    assert Record("x", label, label, refused, "x").wrong is wrong


def test_keys_of_texts() -> None:
    assert key("Kill  the JOB") == key("kill the job")
