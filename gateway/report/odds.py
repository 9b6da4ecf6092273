"""Which words stand out in one set of texts against another: log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn, "Fightin' Words" (Political Analysis 16:4, 2008), equations 16 to 22: the prior is how often
a word occurs in both sets together, so that a word seen once in a small set does not lead the list. Words are counted
once per text, for a text that repeats itself is no better evidence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
# How many words the prior weighs as much as.
PRIOR_WORDS = 200.0


@dataclass(frozen=True, slots=True)
class Odds:
    """`z`: the log-odds ratio in standard deviations, over 1.96 where the word stands out at 95 %. Counts are texts."""

    word: str
    z: float
    log_odds: float
    texts: int
    others: int


def words(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return {match.group().lower() for match in _WORD.finditer(text)}


def outstanding(
    texts: Iterable[str],
    others: Iterable[str],
    most: int = 25,
    least: int = 2,
    parts: Callable[[str], set[str]] = words,
) -> list[Odds]:
    """The words that speak most for `texts` against `others`, the strongest first; each in at least `least` texts.

    `parts`: what to count of a text in place of its words.
    """
    ours, theirs = _counts(texts, parts), _counts(others, parts)
    pooled = ours + theirs
    total, n, m = sum(pooled.values()), sum(ours.values()), sum(theirs.values())
    if not n or not m:
        return []
    found = []
    for word, count in ours.items():
        if count < least:
            continue
        prior = PRIOR_WORDS * pooled[word] / total
        a, b = count + prior, theirs[word] + prior
        log_odds = math.log(a / (n + PRIOR_WORDS - a)) - math.log(b / (m + PRIOR_WORDS - b))
        z = log_odds / math.sqrt(1 / a + 1 / b)
        if z > 0:
            found.append(Odds(word, round(z, 2), round(log_odds, 2), count, theirs[word]))
    return sorted(found, key=lambda one: (-one.z, one.word))[:most]


def _counts(texts: Iterable[str], parts: Callable[[str], set[str]]) -> Counter[str]:
    return Counter(part for text in texts for part in parts(text))


def share(hits: int, total: int) -> dict[str, float | int]:
    """A share with its 95 % Wilson interval; zeros where there is nothing to share."""
    if not total:
        return {"hits": 0, "total": 0, "share": 0.0, "low": 0.0, "high": 0.0}
    z = 1.959964
    p = hits / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"hits": hits, "total": total, "share": round(p, 4), "low": round(low, 4), "high": round(high, 4)}


def ordered(names: Sequence[str], counts: Counter[str], most: int) -> list[str]:
    """The `most` frequent names, the most frequent first."""
    return sorted(names, key=lambda name: (-counts[name], name))[:most]
