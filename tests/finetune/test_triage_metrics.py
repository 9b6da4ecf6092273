"""The numbers of a report, on cases small enough to check by hand."""

import numpy
import pytest

from classifiers.labels import LABELS
from finetune.triage import metrics, page, points


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
    found = metrics.toxicity([1.0, 0.0, None], [0.9, 0.1, 0.9])
    assert found["recall"]["share"] == 1
    assert found["false_positive_rate"]["share"] == 0
    assert metrics.toxicity([None], [0.5]) is None


def test_a_share_of_nothing_reads_as_nothing():
    assert page.percent(metrics.wilson(0, 0)) == "-"
    assert page.percent(metrics.wilson(1, 2)) == "50.0% (9.5% to 90.5%; 1 of 2)"


def test_roc_area_is_the_chance_that_a_risk_scores_higher():
    scores = numpy.zeros((4, len(LABELS)))
    scores[:, LABELS.index("hate")] = [0.9, 0.4, 0.4, 0.1]
    found = metrics.roc(["hate", "hate", "benign", "benign"], scores)
    assert set(found) == {"hate"}
    assert found["hate"]["area"] == pytest.approx((2 + 1.5) / 4)
    assert found["hate"]["curve"][0] == (0.0, 0.0)
    assert found["hate"]["curve"][-1] == (1.0, 1.0)


def test_per_category_counts_risks_only():
    found = metrics.per_category(
        ["harmful.fraud", "harmful.fraud", "benign", None],
        ["harmful"] * 2 + ["benign", "hate"],
        ["benign", "hate", "harmful", "hate"],
    )
    assert found == {"harmful.fraud": metrics.wilson(1, 2)}


def test_a_point_keeps_to_its_budget_and_is_no_stricter_than_it_must():
    rng = numpy.random.default_rng(1)
    scores = rng.random((3000, len(LABELS)))
    truth = ["benign"] * 2000 + ["harmful"] * 1000
    for budget in (0.01, 0.05, 0.2):
        point = points.choose(truth, scores, budget)
        share = points.flagged(scores[:2000], point).mean()
        assert budget * 0.7 < share <= budget
        assert all(one["doubt"] <= one["act"] for one in point.values())
    assert points.choose(truth, scores, 0.2)["hate"]["doubt"] < points.choose(truth, scores, 0.01)["hate"]["doubt"]
    with pytest.raises(ValueError, match="no harmless rows"):
        points.choose(["hate"], scores[:1], 0.1)
