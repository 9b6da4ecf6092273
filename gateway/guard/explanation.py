"""Why triage made of a request what it did: the plan again, and the words that moved its score.

Words are sought in the one text that led to the plan, and only where the encoder read it: what the screen cleared has
no score worth explaining, and a long text would cost minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from classifiers.explain import Weight
from classifiers.message import Judgement, Message
from gateway.call import Call
from gateway.errors import RailFailed
from gateway.guard.checks import Checks
from gateway.guard.plan import asked, merge
from gateway.guard.policy import RISKS
from gateway.guard.verdict import Plan
from gateway.record.observation import Observation

MOST_CHARACTERS = 1_500
# Below this no label is worth a word.
LEAST_SCORE = 0.05


@dataclass(frozen=True, slots=True)
class Explanation:
    """`text`: what `words` are places in; `label`: whose score they moved; `silent`: why there are none.

    `complete`: whether triage read all of it.
    """

    plan: Plan
    text: str
    label: str
    words: Sequence[Weight]
    silent: str
    complete: bool


async def explain(checks: Checks, call: Call, seen: Observation) -> Explanation:
    """Judge the request again, which its memory makes cheap, and look for the words. Raises `RailFailed`."""
    found = asked(call)
    judged = await checks.judge(found, seen)
    if judged is None:
        raise RailFailed("triage", "unknown")
    plan = merge(checks.policy, found, judged)
    pairs = list(zip(found, judged, strict=True))
    complete = all(one.complete for one in judged)
    if not pairs:
        return Explanation(plan, "", "", (), "there is no new text", complete)
    message, judgement, label = max(
        ((message, judgement, label) for message, judgement in pairs for label in _risks(message, plan)),
        key=lambda one: one[1].scores.get(one[2], 0.0),
    )
    silent = _silent(message, judgement, label)
    words = [] if silent else await checks.words(message, label)
    silent = silent or ("" if words else "no single word moved the score")
    return Explanation(plan, message.text, label, words, silent, complete)


def _risks(message: Message, plan: Plan) -> Sequence[str]:
    """The label that led to the plan; where none did, all that could have."""
    if plan.label != "benign":
        return (plan.label,)
    return ("prompt_injection",) if message.kind == "tool" else RISKS


def _silent(message: Message, judgement: Judgement, label: str) -> str:
    if judgement.tier == "screen":
        return "the screen cleared it"
    if judgement.scores.get(label, 0.0) < LEAST_SCORE:
        return "no score is high enough to explain"
    if len(message.text) > MOST_CHARACTERS:
        return f"the text is over {MOST_CHARACTERS:,} characters"
    return ""
