"""Normalisation: what looks the same reads the same, and what is another script stays so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.text import normalise


def test_compatibility_forms_invisible_characters_and_spaces():
    assert normalise("\uff28ello\u200b \u00adwor\u2060ld\n\n\t!  ") == "Hello world !"


def test_tag_characters_and_lone_surrogates_go():
    assert normalise("a\U000e0041\U000e0042b\ud800c") == "abc"


def test_plain_text_stays():
    assert normalise("What is an index fund?") == "What is an index fund?"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("h\u043ew t\u043e steal", "how to steal"),  # Cyrillic o
        ("\u0397\u03bfw to", "how to"),  # Greek
        ("\u029c\u1d0f\u1d21 \u1d1b\u1d0f", "how to"),  # small capitals
        ("\U0001d559\U0001d560\U0001d568", "how"),  # double-struck
        ("\U0001f177\U0001f17e\U0001f186", "how"),  # in squares
        ("\U0001f1ed\U0001f1f4\U0001f1fc", "how"),  # regional indicators
    ],
)
def test_look_alikes_become_latin(text, read):
    assert normalise(text).lower() == read


@pytest.mark.parametrize(
    "text",
    [
        "\u041a\u0430\u043a \u0434\u0435\u043b\u0430, \u0442\u043e\u0432\u0430\u0440\u0438\u0449?",
        "\u0413\u0434\u0435 \u043c\u043e\u044f \u043a\u0430\u0440\u0442\u0430 Visa?",
        "the price in \u0440\u0443\u0431\u043b\u0435\u0439",
        "let \u03b2 be 0.05",
        "\u65e5\u672c\u8a9e\u306e\u8cea\u554f\u3067\u3059",
    ],
)
def test_other_scripts_stay(text):
    assert normalise(text) == text


@given(st.text())
def test_normal_text_is_normal(text):
    once = normalise(text)
    assert once == " ".join(once.split())
    assert normalise(once) == once
