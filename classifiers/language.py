"""Which language a text is in, as far as triage must know: English, which it was trained on, or another one.

The judgement is py3langid's (BSD-3-Clause), about 0.03 ms; it is asked only where no common English words speak against
it. Does not tell: texts of under three words in Latin script, code, texts that mix English with another language.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

ENGLISH = "en"
_SURE = 0.75
# What py3langid calls no language (codes, numbers), and a creole whose words are English.
_ENGLISH_TOO = frozenset({"zxx", "und", "pcm", ENGLISH})
_LONGEST = 600
_LETTERS = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "about",
        "am",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "him",
        "his",
        "how",
        "i",
        "i'm",
        "if",
        "in",
        "is",
        "it",
        "its",
        "just",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "please",
        "she",
        "should",
        "so",
        "some",
        "than",
        "that",
        "the",
        "their",
        "them",
        "there",
        "they",
        "this",
        "to",
        "up",
        "u",
        "ur",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """The ISO 639-1 code of a normalised text's language; "en" where it cannot be told."""
    sample = text[:_LONGEST]
    words = _LETTERS.findall(sample)
    letters = sum(map(len, words))
    foreign = sum(letter.isalpha() and ord(letter) > 0x24F for letter in sample)
    if foreign * 2 <= letters:
        english = sum(word.lower() in _FUNCTION_WORDS for word in words)
        if len(words) < 3 or english * 5 >= len(words):
            return ENGLISH
    elif letters < 4:  # symbols
        return ENGLISH
    found, sure = _identifier().classify(sample)
    if foreign * 2 > letters:
        return "und" if found in _ENGLISH_TOO else str(found)
    return ENGLISH if sure < _SURE or found in _ENGLISH_TOO else str(found)
