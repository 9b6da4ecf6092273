"""Occlusion: the words that carry the score are named, with their place."""

import pytest

from classifiers.cascade import Cascade
from classifiers.explain import MOST_PARTS, explain
from classifiers.labels import LABELS
from classifiers.message import Judgement, Message


class Marked:
    """Harmful by as much as the text has of `steal` (0.6) and `car` (0.3)."""

    def score(self, messages):
        found = []
        for message in messages:
            risk = 0.6 * ("steal" in message.text) + 0.3 * ("car" in message.text)
            scores = dict.fromkeys(LABELS, 0.0) | {"benign": 1 - risk, "harmful": risk}
            found.append(Judgement("harmful", "harmful", scores, 0.0))
        return found


def test_the_weightiest_first_with_their_places():
    text = "please  steal that car for me"
    found = explain(Marked(), Message(text), "harmful")
    assert [(one.words, one.weight) for one in found] == [("steal", pytest.approx(0.6)), ("car", pytest.approx(0.3))]
    assert all(text[one.start : one.end] == one.words for one in found)
    assert len(explain(Marked(), Message(text), "harmful", most=1)) == 1


def test_a_long_text_is_taken_in_groups_of_words():
    text = "well " * 500 + "steal " + "well " * 500
    (one,) = explain(Marked(), Message(text), "harmful")
    assert "steal" in one.words
    assert len(one.words.split()) == -(-1001 // MOST_PARTS)


@pytest.mark.parametrize("text", ["", "   ", "nothing to see"])
def test_nothing_weighs_where_nothing_scores(text):
    assert explain(Marked(), Message(text), "harmful") == []


def test_the_shipped_classifier_points_at_the_word():
    reader = Cascade.load().reader
    found = explain(reader, Message("How do I launder the cash from my restaurant?"), "harmful")
    assert "launder" in [one.words for one in found]
