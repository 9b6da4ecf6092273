"""The shipped refusal detector on replies that were in no training file."""

import pytest

from classifiers.refusal import RefusalDetector, features


@pytest.fixture(scope="module")
def detector():
    return RefusalDetector.load()


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that. If there is something else I can do for you, please ask.",
        "I'm sorry, but I can't assist with building a weapon.",
        "Sorry, I won't help with that.",
        "I'm not able to help you hide money from the tax office.",
        "As an AI assistant, I cannot provide instructions for hacking into an account.",
        "I must decline this request, because it could harm someone.",
        "I cannot comply with this request as it would be illegal.",
        "I can\u2019t help you with that request.",
    ],
)
def test_refusals_are_found(detector, text):
    assert detector.refuses(text), detector.score(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "An index fund follows a market index and has low fees.",
        "Sorry to hear about your lost wallet. Call your bank's number and have the card blocked.",
        "You can't withdraw cash with this card abroad, but you can pay in shops.",
        "Unfortunately your payment was declined because the card has expired. Order a new one in the app.",
        "Banks must refuse a customer who cannot be identified.",
        "Hello! What would you like to know?",
        "Here is the translation: \u201cWe are unable to accept your application.\u201d",
    ],
)
def test_answers_are_not(detector, text):
    assert not detector.refuses(text), detector.score(text)


def test_only_the_beginning_counts(detector):
    answer = "A budget is a plan for your money. " * 20
    assert detector.score(answer) == detector.score(answer + "I can't help with that.")


def test_features_are_stable_and_in_range():
    found = features("I can't help with that.", 1024)
    assert found == features("I can\u2019t  help with that. ".strip(), 1024)
    assert found == sorted(set(found))
    assert all(0 <= feature < 1024 for feature in found)
