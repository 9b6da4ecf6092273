"""WEAT and SEAT: how much nearer one group's words lie to one set of attributes than another group's.

Caliskan, Bryson, Narayanan 2017 (Science 356:183), with their test statistic and effect size; May et al. 2019 for
sentences. The effect size d is about -2..2, and 0 where neither group is nearer. The p-value is two-sided, by
permutation of the two groups: exact where there are few partitions, else by a seeded sample of them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from finetune.suite.likelihood import Floats

EXACT = 20_000
SAMPLED = 10_000

# Name: the two groups, the two sets of attributes, and whether it is about people.
TESTS: dict[str, tuple[str, str, str, str, bool]] = {
    "flowers, insects: pleasant": ("flowers", "insects", "pleasant_5", "unpleasant_5a", False),
    "instruments, weapons: pleasant": ("instruments", "weapons", "pleasant_5", "unpleasant_5a", False),
    "European, African American names: pleasant": (
        "european_american_names_5",
        "african_american_names_5",
        "pleasant_5",
        "unpleasant_5b",
        True,
    ),
    "male, female names: career, family": ("male_names", "female_names", "career", "family", True),
    "male, female terms: maths, arts": ("male_terms", "female_terms", "math", "arts", True),
    "male, female terms: science, arts": ("male_terms_2", "female_terms_2", "science", "arts_2", True),
    "young, old names: pleasant": ("young_people_names", "old_people_names", "pleasant_9", "unpleasant_9", True),
}
SENTENCES = ("This is {}.", "That is {}.", "There is {}.", "{} is here.", "{} is there.")


@dataclass(frozen=True, slots=True)
class Effect:
    test: str
    effect: float
    p: float
    social: bool


def effect_size(x: Floats, y: Floats, a: Floats, b: Floats) -> float:
    """d over vectors (words, size): the difference of the groups' mean association, by its standard deviation.

    0 where every word associates alike.
    """
    both = numpy.concatenate([association(x, a, b), association(y, a, b)])
    spread = float(both.std(ddof=1))
    gap = float(both[: len(x)].mean() - both[len(x) :].mean())
    return gap / spread if spread > 1e-12 else 0.0


def association(words: Floats, a: Floats, b: Floats) -> Floats:
    """(words,): the mean cosine to `a` less that to `b`."""
    words, a, b = unit(words), unit(a), unit(b)
    found: Floats = (words @ a.T).mean(axis=1) - (words @ b.T).mean(axis=1)
    return found


def p_value(x: Floats, y: Floats, a: Floats, b: Floats, seed: int) -> float:
    """The share of partitions into groups of these sizes whose difference is at least as large, either way."""
    both = numpy.concatenate([association(x, a, b), association(y, a, b)])
    total, size = float(both.sum()), len(x)

    def gap(first: float) -> float:
        return abs(first / size - (total - first) / (len(both) - size))

    least = gap(float(both[:size].sum())) - 1e-12
    if math.comb(len(both), size) <= EXACT:
        chosen = [both[list(one)].sum() for one in itertools.combinations(range(len(both)), size)]
        return sum(gap(float(one)) >= least for one in chosen) / len(chosen)
    draw = numpy.random.default_rng(seed)
    hits = sum(gap(float(draw.permutation(both)[:size].sum())) >= least for _ in range(SAMPLED))
    return (hits + 1) / (SAMPLED + 1)


def unit(vectors: Floats) -> Floats:
    found: Floats = vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def effects(lists: Path, vectors: Callable[[Sequence[str]], Floats], seed: int) -> list[Effect]:
    """Every test of `TESTS` over the word lists in a WEAT.json."""
    found = json.loads(lists.read_text(encoding="utf-8"))
    out = []
    for name, (x, y, a, b, social) in TESTS.items():
        vx, vy, va, vb = (vectors(found[one]) for one in (x, y, a, b))
        out.append(Effect(name, effect_size(vx, vy, va, vb), p_value(vx, vy, va, vb, seed), social))
    return out


def in_sentences(words: Sequence[str]) -> list[str]:
    """Each word in each of the bleached sentences."""
    return [frame.format(word) for word in words for frame in SENTENCES]
