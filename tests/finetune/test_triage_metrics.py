"""The numbers of a report, on cases small enough to check by hand."""

import numpy
import pytest

from classifiers.labels import LABELS
from finetune.triage import figures, metrics


def test_wilson():
    half = metrics.wilson(5, 10)
    assert half["share"] == 0.5
    assert half["low"] == pytest.approx(0.2366, abs=1e-4)
    assert half["high"] == pytest.approx(0.7634, abs=1e-4)
    assert metrics.wilson(0, 10)["low"] == 0
    assert metrics.wilson(0, 0) == {"hits": 0, "total": 0, "share": 0.0, "low": 0.0, "high": 1.0}


def test_confusion_and_labels():
    truth = ["benign", "benign", "harmful", "harmful", "hate"]
    found = ["benign", "harmful", "harmful", "benign", "hate"]
    matrix = metrics.confusion(truth, found)
    assert matrix.sum() == 5
    assert matrix[LABELS.index("benign"), LABELS.index("harmful")] == 1
    labels = metrics.per_label(matrix)
    assert labels["harmful"]["precision"] == 0.5
    assert labels["harmful"]["recall"]["share"] == 0.5
    assert labels["hate"]["f1"] == 1
    assert labels["self_harm"] == {"precision": 0.0, "recall": metrics.wilson(0, 0), "f1": 0.0, "rows": 0}


def test_flagged_counts_any_risk():
    both = metrics.flagged(["benign", "benign", "hate", "harmful"], ["benign", "hate", "harmful", "benign"])
    assert both["false_positive_rate"]["share"] == 0.5
    assert both["recall"]["share"] == 0.5


def test_thresholds():
    scores = numpy.zeros((2, len(LABELS)))
    scores[0, LABELS.index("harmful")] = 0.75
    scores[1, LABELS.index("harmful")] = 0.45
    steps = {one["threshold"]: one for one in metrics.at_thresholds(["harmful", "benign"], scores)["harmful"]}
    assert steps[0.4]["false_positive_rate"]["share"] == 1
    assert steps[0.7]["recall"]["share"] == 1
    assert steps[0.7]["false_positive_rate"]["share"] == 0
    assert steps[0.8]["recall"]["share"] == 0


def test_calibration_error_is_the_gap():
    scores = numpy.full((10, len(LABELS)), 0.04)
    scores[:, 0] = 0.8
    truth = ["benign"] * 6 + ["harmful"] * 4
    assert metrics.calibration_error(truth, scores) == pytest.approx(0.2)


def test_untempered_undoes_the_temperature():
    logits = numpy.array([[2.0, 1.0, 0.0, -1.0, 0.5, 0.0]])
    powers = numpy.exp(logits / 2.5)
    plain = numpy.exp(logits)
    found = metrics.untempered(powers / powers.sum(), 2.5)
    assert found == pytest.approx(plain / plain.sum(), abs=1e-6)


def test_toxicity_ignores_rows_that_do_not_say():
    rows = [{"toxicity": 1.0}, {"toxicity": 0.0}, {}, {"toxicity": None}]
    found = metrics.toxicity(rows, [0.9, 0.1, 0.9, 0.9])
    assert found["recall"]["share"] == 1
    assert found["false_positive_rate"]["share"] == 0
    assert metrics.toxicity([{}], [0.5]) is None


def test_a_share_of_nothing_reads_as_nothing():
    assert figures.percent(metrics.wilson(0, 0)) == "-"
    assert figures.percent(metrics.wilson(1, 2)) == "50.0% (9.5% to 90.5%; 1 of 2)"
