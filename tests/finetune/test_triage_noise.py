"""Label noise: labels that were swapped on purpose are found, and few others."""

import numpy
import pytest

pytest.importorskip("sklearn")

from classifiers.labels import LABELS
from finetune.triage import noise


def test_swapped_labels_are_found():
    rng = numpy.random.default_rng(3)
    truth = rng.integers(0, 3, 600)
    points = rng.normal(size=(600, 8)).astype(numpy.float32)
    points[numpy.arange(600), truth] += 4
    given = truth.copy()
    swapped = rng.choice(600, 30, replace=False)
    given[swapped] = (given[swapped] + 1) % 3
    shares = noise.probabilities(points, [LABELS[at] for at in given])
    found = noise.suspects(shares, given)
    assert found[swapped].mean() > 0.8
    assert numpy.delete(found, swapped).mean() < 0.03


def test_a_label_without_rows_is_nobodys_likelier_one():
    shares = numpy.array([[0.6, 0.4, 0.0], [0.7, 0.3, 0.0]])
    assert not noise.suspects(shares, numpy.array([0, 0])).any()
