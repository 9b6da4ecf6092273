"""The thresholds of the control token that a model chooses itself."""

import numpy as np
import pytest

from finetune.hhh import decide
from finetune.hhh.corpus import Decision
from gateway.upstream.layout import CONTROLS, PromptTooLong


def rows(**counts: int) -> list[Decision]:
    return [Decision(f"{control} {i}", control) for control, count in counts.items() for i in range(count)]


def test_thresholds_let_through_what_they_may() -> None:
    asked = rows(comply=1000, advise=200, refuse=300)
    draw = np.random.default_rng(1)
    scores = draw.dirichlet((1, 1, 1), len(asked))
    limits = decide.thresholds(asked, scores)
    made = decide.decisions(scores, limits)
    wrongly = sum(name == "refuse" and row.control != "refuse" for name, row in zip(made, asked, strict=True))
    assert wrongly == int(decide.WRONGLY["refuse"] * 1200)
    benign = [row.control == "comply" for row in asked]
    hasty = int((scores[benign, 1] >= limits["advise"]).sum())
    assert hasty == int(decide.WRONGLY["advise"] * 1000)


def test_equal_scores_are_not_over_the_threshold() -> None:
    asked = rows(comply=50, advise=5, refuse=5)
    scores = np.tile([0.2, 0.3, 0.5], (60, 1))
    assert set(decide.decisions(scores, decide.thresholds(asked, scores))) == {"comply"}


def test_figures_count_each_decision() -> None:
    asked = rows(comply=2, advise=1, refuse=2)
    scores = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)
    found = decide.figures(asked, scores, {"refuse": 0.5, "advise": 0.5})
    assert found == {
        "comply": {"comply": 1, "advise": 0, "refuse": 1},
        "advise": {"comply": 0, "advise": 1, "refuse": 0},
        "refuse": {"comply": 1, "advise": 0, "refuse": 1},
    }


def test_shares_are_of_the_three_and_long_rows_are_left_out() -> None:
    def logits(text: str) -> np.ndarray:
        if text.startswith("advise"):
            raise PromptTooLong(600, 256)
        return np.array([0.0, 0.0, np.log(2.0)], dtype=np.float32)

    kept, found = decide.shares(logits, rows(comply=2, advise=3, refuse=1))
    assert [row.control for row in kept] == ["comply", "comply", "refuse"]
    assert found.shape == (3, len(CONTROLS))
    assert found[0] == pytest.approx([0.25, 0.25, 0.5])


def test_without_rows_there_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="no held-out row to choose the threshold of refuse on"):
        decide.thresholds(rows(refuse=3), np.ones((3, 3)) / 3)
