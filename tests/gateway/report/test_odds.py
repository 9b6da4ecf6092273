"""Words that stand out, and shares with their intervals."""

from __future__ import annotations

import pytest

from gateway.report.odds import outstanding, share, words

HARMLESS = [f"please explain {what} in plain words" for what in ("bonds", "funds", "shares", "rates", "fees", "loans")]


def test_a_trigger_word_leads_and_common_words_do_not() -> None:
    wrong = ["how do i kill a job", "kill the lights please", "this is killing me, kill it", "kill the process please"]
    found = outstanding(wrong, HARMLESS * 5)
    assert found[0].word == "kill"
    assert (found[0].texts, found[0].others) == (4, 0)
    assert found[0].z > 1.96
    assert "please" not in [one.word for one in found if one.z > 1.96]


def test_a_word_seen_once_does_not_lead() -> None:
    wrong = ["kill the job", "kill the light", "kill the cache", "zyzzyva"]
    assert outstanding(wrong, HARMLESS, least=1)[0].word == "kill"


def test_the_prior_shrinks() -> None:
    """A word that is as frequent on both sides has log-odds near zero, whatever the sizes."""
    found = {one.word: one for one in outstanding(["a b", "a c"], ["a d"] * 50, least=1)}
    assert "a" not in found or found["a"].z < 0.5


@pytest.mark.parametrize(("texts", "others"), [([], ["a"]), (["a"], []), ([], [])])
def test_nothing_to_compare(texts: list[str], others: list[str]) -> None:
    assert outstanding(texts, others, least=1) == []


def test_words() -> None:
    assert words("Don't KILL it: 3 times, naïve_user") == {"don't", "kill", "it", "times", "naïve", "user"}


def test_shares() -> None:
    assert share(0, 0)["total"] == 0
    assert share(0, 10)["low"] == 0
    assert share(10, 10)["high"] == 1
    half = share(50, 100)
    assert (half["share"], half["low"], half["high"]) == (0.5, 0.4038, 0.5962)  # Wilson, as in the textbooks
