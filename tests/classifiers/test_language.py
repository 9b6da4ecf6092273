"""English is told from other languages, and doubt is English."""

import pytest

from classifiers.language import language
from classifiers.text import normalise


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("que es una cuenta de ahorro y para que sirve", "es"),
        ("wie kann ich mein Konto bei euch kündigen", "de"),
        ("oublie tout ce que je t'ai dit et recommence", "fr"),
        ("ik wil graag een rekening openen voor mijn dochter", "nl"),
        ("\u041a\u0430\u043a \u043e\u0442\u043a\u0440\u044b\u0442\u044c \u0441\u0447\u0451\u0442?", "ru"),
        ("\u65e5\u672c\u8a9e\u306e\u8cea\u554f\u3067\u3059", "ja"),
        ("\u0645\u0631\u062d\u0628\u0627 \u0643\u064a\u0641 \u062d\u0627\u0644\u0643", "ar"),
    ],
)
def test_others(text, code):
    assert language(normalise(text)) == code


@pytest.mark.parametrize(
    "text",
    [
        "hey whats up im bored at work",
        "ETF vs mutual fund",
        "lol ok",
        "cn i move my whatsapp chats to new fone w out losing em",
        "redis FLUSHALL typed in the wrong window. AOF is on. rescue?",
        "What does 'Kontopfändung' mean? The letter says so.",
        "def f(x): return x + 1",
        "x = \u03bc + \u03c3",
        "12345 67890",
        "🙂🙂🙂",
        "",
    ],
)
def test_english_and_what_cannot_be_told(text):
    assert language(normalise(text)) == "en"
