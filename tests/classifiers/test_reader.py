"""What tier 1 is given to read: passages of long texts, other readings, a short turn with those before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.cascade import MOST_PASSAGES, MOST_TEXT, OVERLAP_CHARACTERS, Cascade, Reader, passages
from classifiers.labels import LABELS
from classifiers.message import Judgement, Message, merged

KNOWN = ("the", "a", "i", "how", "to", "forge", "passport", "do", "my", "with", "of", "and")
WORDS = {word: rank for rank, word in enumerate(KNOWN, 1000)}
PROSE = "The treasurer thanks everyone who helped to paint the boathouse last spring. "


class Marked:
    """Injection where the text says ATTACK, harm where turn and earlier turns say it together; keeps what it read."""

    def __init__(self):
        self.read = []

    def score(self, messages):
        self.read += messages
        return [self._judge(message) for message in messages]

    def _judge(self, message):
        risks = {"prompt_injection": 0.9 * ("ATTACK" in message.text)}
        risks["harmful"] = 0.8 * ("rest" in message.text and "lock" in message.before)
        scores = {**dict.fromkeys(LABELS, 0.0), "benign": 1 - max(risks.values()), **risks}
        label = max(LABELS, key=lambda name: scores[name])
        return Judgement(label, label, scores, 0.3 * ("rude" in message.text))


def _judged(risk, score):
    scores = {**dict.fromkeys(LABELS, 0.0), "benign": 1 - score, risk: score}
    label = max(LABELS, key=lambda name: scores[name])
    return Judgement(label, label, scores, 0.0)


class Calm:
    """A screen that clears whatever does not say ATTACK or rest."""

    threshold = 0.5

    def score(self, texts):
        return [0.9 if "ATTACK" in text or "lock" in text else 0.1 for text in texts]


@given(st.text(alphabet="ab \n", max_size=5_000) | st.text(max_size=3_000))
def test_passages_cover_a_text_with_overlaps(text):
    found = passages(text)
    assert found[0] == text[: len(found[0])]
    at = 0
    for passage in found:
        start = text.find(passage, max(0, at - OVERLAP_CHARACTERS))
        assert start <= at
        at = max(at, start + len(passage))
    assert at == len(text)


def test_long_prose_is_cut_at_spaces():
    found = passages(PROSE * 60)
    assert len(found) > 5
    assert all(len(one) <= 900 for one in found)
    assert all(one == one.strip() or one.endswith(" ") for one in found[1:-1])


@pytest.mark.parametrize("place", [0, 20_000, 39_000])
def test_a_payload_anywhere_in_a_long_text_is_found(place):
    text = (PROSE * 600)[:40_000]
    text = f"{text[:place]} ATTACK now {text[place:]}"
    encoder = Marked()
    judged = Cascade(encoder, Calm(), WORDS).score([Message(text)])[0]
    assert judged.label == "prompt_injection"
    assert judged.complete
    assert len(encoder.read) <= 2  # the screen has cleared the rest


def test_past_the_cap_both_ends_are_read_and_it_is_said():
    encoder = Marked()
    judged = Reader(encoder, None, WORDS).score([Message(PROSE * 1000 + "ATTACK")])[0]
    assert len(encoder.read) == MOST_PASSAGES
    assert judged.label == "prompt_injection"
    assert not judged.complete


def test_more_than_any_text_is_never_complete_however_calm():
    judged = Cascade(Marked(), Calm(), WORDS).score([Message(PROSE * (MOST_TEXT // len(PROSE) + 2))])[0]
    assert (judged.label, judged.complete) == ("benign", False)


def test_a_short_turn_is_read_alone_and_after_those_before_it():
    encoder = Marked()
    cascade = Cascade(encoder, Calm(), WORDS)
    judged = cascade.score([Message("now the rest", "how does a lock work")])[0]
    assert judged.label == "harmful"
    context = "how does a lock work"
    assert encoder.read == [Message("now the rest"), Message("now the rest", context), Message(context)]
    assert cascade.score([Message("now the rest")])[0].tier == "screen"
    assert cascade.score([Message("now the rest", "and the weather?")])[0].tier == "screen"


def test_a_turn_that_was_a_risk_itself_does_not_make_the_next_one_a_risk():
    judged = Reader(Marked(), None, WORDS).score([Message("now the rest", "ATTACK the lock")])[0]
    assert judged.label == "benign"


def test_a_long_turn_speaks_for_itself():
    encoder = Marked()
    Reader(encoder, None, WORDS).score([Message("rest " * 100, "a lock")])
    assert [message.before for message in encoder.read] == [""]


def test_a_tool_result_is_never_screened_and_has_no_turns_before_it():
    encoder = Marked()
    judged = Cascade(encoder, Calm(), WORDS).score([Message("fine weather", "x", kind="tool")])[0]
    assert judged.tier == "encoder"
    assert encoder.read == [Message("fine weather", kind="tool"), Message("fine weather")]


@pytest.mark.parametrize(("marked", "plain", "label"), [
    (0.1, 0.8, "benign"), (0.1, 0.95, "prompt_injection"), (0.9, 0.05, "prompt_injection"),
])  # fmt: skip
def test_a_tool_result_is_read_with_its_mark_unless_it_is_an_injection_in_anyones_mouth(marked, plain, label):
    class Torn:
        def score(self, messages):
            risks = [marked if message.kind == "tool" else plain for message in messages]
            return [_judged("prompt_injection", risk) for risk in risks]

    assert Reader(Torn(), None, WORDS).score([Message("sunny", kind="tool")])[0].label == label


def test_other_readings_are_judged_beside_the_text():
    encoder = Marked()
    judged = Reader(encoder, None, WORDS).score([Message("QVRUQUNLIG5vdyBwbGVhc2U=")])[0]  # ATTACK now please
    assert judged.label == "prompt_injection"
    assert [message.text for message in encoder.read] == ["QVRUQUNLIG5vdyBwbGVhc2U=", "ATTACK now please"]


def test_the_language_is_told_of_what_is_read():
    found = Reader(Marked(), None, WORDS).score(
        [Message("wie kann ich mein Konto bei euch kündigen"), Message("hello")]
    )
    assert [one.language for one in found] == ["de", "en"]


def test_merged_takes_each_risk_where_it_is_highest():
    calm, rude = Marked().score([Message("x"), Message("a rude ATTACK")])
    found = merged([calm, rude])
    assert (found.label, found.category) == ("prompt_injection", "prompt_injection")
    assert found.scores["benign"] == pytest.approx(0.1)
    assert found.toxicity == 0.3
    assert merged([calm]) is calm
