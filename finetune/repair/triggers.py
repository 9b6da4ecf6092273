"""Which words and frames trigger wrong refusals: log-odds say where they stand, occlusion says what they do.

Log-odds with an informative Dirichlet prior (Monroe et al. 2008, `gateway.report.odds`) over words and short frames, of
wrongly refused texts against harmless ones that were let through. Then each candidate is left out of the texts that
have it, and the classifier asked again: how far the score falls, and how many refusals are none any more. A word that
only keeps company with a trigger has odds and no fall. A model's own refusals cannot be asked again in this way: of
those there are odds only.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from classifiers.explain import explain
from classifiers.labels import LABELS
from classifiers.message import Judgement, Message
from finetune.repair.frames import holds, is_frame, parts, without, words_of
from finetune.repair.judge import Judge
from finetune.repair.recipe import Triggers
from gateway.report.odds import Odds, outstanding, words

# Candidates that are left out in turn: by odds, and those that `explain` finds heavy.
_WORDS, _FRAMES, _HEAVY = 60, 40, 30
_EXPLAINED = 40
# A frame must do so much more than the strongest word in it to be a trigger itself.
_MORE = 0.1
# Without a classifier to ask again: the least log-odds in standard deviations.
_CLEAR = 1.96


@dataclass(frozen=True, slots=True)
class Trigger:
    """`texts`: wrongly refused with it; `others`: let through with it. `fall` is the mean over `tried` texts that were
    refused, `turned` those that are not refused without it. Without occlusion `tried` is 0.
    """

    part: str
    z: float
    log_odds: float
    texts: int
    others: int
    fall: float
    turned: int
    tried: int


def plain(one: Trigger) -> dict[str, Any]:
    return asdict(one)


def find(
    wrong: Sequence[str], passed: Iterable[str], judge: Judge | None, settings: Triggers, seed: int
) -> list[Trigger]:
    """The strongest first: by the refusals they account for, which is how often times how far the score falls.

    `wrong`: harmless texts that were refused. `passed`: harmless texts that were let through.
    """
    odds = {one.word: one for one in outstanding(wrong, passed, most=1_000_000, parts=parts)}
    ranked = sorted(odds.values(), key=lambda one: -one.z)
    named = [one for one in ranked if not is_frame(one.word)][:_WORDS]
    named += [one for one in ranked if is_frame(one.word)][:_FRAMES]
    if judge is None:
        clear = [_without_fall(one) for one in named if one.z >= _CLEAR]
        return _single(sorted(clear, key=lambda one: -one.z))[: settings.most]
    draw = random.Random(seed)
    refused = _Refused(judge, wrong)
    for part in refused.heavy(draw):
        if part not in {one.word for one in named}:
            count = sum(holds(text, part, forms=False) for text in wrong)
            named.append(odds.get(part) or Odds(part, 0.0, 0.0, count, 0))
    tried = [refused.left_out(one, settings.texts, draw) for one in named]
    strong = [one for one in tried if one.tried >= 2 and one.fall >= settings.fall and one.turned]
    return _single(sorted(strong, key=lambda one: -one.fall * one.texts))[: settings.most]


def _without_fall(one: Odds) -> Trigger:
    return Trigger(one.word, one.z, one.log_odds, one.texts, one.others, 0.0, 0, 0)


def _single(found: list[Trigger]) -> list[Trigger]:
    """Without frames that do no more than a word in them, or than a frame before them that they overlap."""
    kept = [one for one in found if not is_frame(one.part)]
    for frame in (one for one in found if is_frame(one.part)):
        said = set(words_of(frame.part))
        nested = [one for one in kept if (inner := set(words_of(one.part))) <= said or said <= inner]
        if all(frame.fall > one.fall + _MORE for one in nested):
            kept.append(frame)
    chosen = {one.part for one in kept}
    return [one for one in found if one.part in chosen]


class _Refused:
    """The wrongly refused texts with their scores, to be asked again without parts of them."""

    def __init__(self, judge: Judge, texts: Sequence[str]) -> None:
        messages = [Message(text) for text in texts]
        judged = judge.score(messages)
        routes = judge.routes(messages, judged)
        self._judge = judge
        # A text that these weights do not refuse (reported under older ones) has nothing to turn.
        self._known = [
            (text, one, _risk(one))
            for text, one, route in zip(texts, judged, routes, strict=True)
            if route in ("refuse", "review")
        ]

    def heavy(self, draw: random.Random) -> list[str]:
        """Words that `explain` finds heavy in a sample of the texts."""
        weights: defaultdict[str, float] = defaultdict(float)
        texts: Counter[str] = Counter()
        for text, _, label in draw.sample(self._known, min(_EXPLAINED, len(self._known))):
            for heavy in explain(self._judge.cascade.reader, Message(text), label):
                for word in words(heavy.words):
                    weights[word] += heavy.weight
                    texts[word] += 1
        often = [word for word in weights if texts[word] > 1]
        return sorted(often, key=lambda word: -weights[word])[:_HEAVY]

    def left_out(self, one: Odds, most: int, draw: random.Random) -> Trigger:
        having = [known for known in self._known if holds(known[0], one.word, forms=False)]
        having = draw.sample(having, min(most, len(having)))
        messages = [Message(without(text, one.word) or ".") for text, _, _ in having]
        judged = self._judge.score(messages)
        routes = self._judge.routes(messages, judged)
        falls = [
            before.scores[label] - after.scores[label] for (_, before, label), after in zip(having, judged, strict=True)
        ]
        turned = sum(route in ("allow", "advise") for route in routes)
        fall = round(sum(falls) / len(falls), 4) if falls else 0.0
        return Trigger(one.word, one.z, one.log_odds, one.texts, one.others, fall, turned, len(falls))


def _risk(one: Judgement) -> str:
    """The label that a text was refused for: the likeliest that no harmless message has."""
    return max(LABELS[2:], key=lambda label: one.scores[label])
