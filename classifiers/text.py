"""Normalisation of text before a classifier reads it: compatibility forms, invisible characters, look-alike letters.

What is encoded, spelt out or written in leetspeak is another reading of the text, not its form: see `disguise`.
"""

from __future__ import annotations

import re
import unicodedata

# Characters that show nothing: soft hyphen, zero-width and direction marks, variation selectors, tag characters.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_ASCII = re.compile("[\x20-\x7e]*")
_WORD = re.compile(r"\w+")

# Letters that look like Latin ones: Cyrillic, Greek, Armenian and Cherokee, small capitals, phonetic letters.
_LOOKALIKES = {
    "a": "\u0430\u03b1\u1d00\u0251\u0391\u0410\u13aa",
    "b": "\u0412\u0392\u0299\u042c\u0184\u13f4",
    "c": "\u0441\u03f2\u1d04\u0421\u03f9\u13df",
    "d": "\u0501\u1d05\u0257\u13a0",
    "e": "\u0435\u0451\u03b5\u1d07\u0395\u0415\u0454\u13ac",
    "f": "\ua730\u0192\u03dd",
    "g": "\u0261\u0262\u0581\u050c\u13c0",
    "h": "\u04bb\u029c\u0397\u041d\u0570\u13bb",
    "i": "\u0456\u03b9\u026a\u0131\u0399\u0406\u13a5",
    "j": "\u0458\u1d0a\u0408\u03f3\u13ab",
    "k": "\u043a\u03ba\u1d0b\u039a\u041a\u13e6",
    "l": "\u04cf\u029f\u1963\u04c0\u13de",
    "m": "\u043c\u1d0d\u039c\u041c\u13b7",
    "n": "\u043f\u0274\u039d\u0578\u0580",
    "o": "\u043e\u03bf\u1d0f\u039f\u041e\u0585\u0ae6\u13a4",
    "p": "\u0440\u03c1\u1d18\u03a1\u0420\u13e2",
    "q": "\u051b\u0566\u01eb",
    "r": "\u0433\u0280\u13a1\u1d26",
    "s": "\u0455\ua731\u0405\u13da",
    "t": "\u0442\u03c4\u1d1b\u03a4\u0422\u13a2",
    "u": "\u057d\u03c5\u1d1c\u0446\u028b",
    "v": "\u03bd\u0475\u1d20\u0474\u13d9",
    "w": "\u0461\u051d\u1d21\u03c9\u0428\u13b3",
    "x": "\u0445\u03c7\u03a7\u0425",
    "y": "\u0443\u03b3\u028f\u03a5\u0423\u04af\u13bd",
    "z": "\u1d22\u0396\u13c3",
}
_LATIN = {ord(letter): latin for latin, letters in _LOOKALIKES.items() for letter in letters}
# Letters in black circles and squares, and those that flags are made of, which compatibility forms leave alone.
_EMBLEMS = {first + at: chr(ord("a") + at) for first in (0x1F150, 0x1F170, 0x1F1E6) for at in range(26)}


def normalise(text: str) -> str:
    """NFKC; invisible characters and lone surrogates removed; look-alike letters of other scripts made Latin.

    Letters are replaced only in a text of which most letters are Latin once they are, so that Russian stays Russian.
    Runs of white space become one space.
    """
    if _ASCII.fullmatch(text) is None:
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", _SURROGATES.sub("", text)).translate(_EMBLEMS))
        text = _latinised(text)
    return _SPACES.sub(" ", text).strip()


def _latinised(text: str) -> str:
    suspects = sum(ord(letter) in _LATIN for letter in text)
    if not suspects:
        return text
    mixed = _WORD.sub(lambda word: _latin_word(word[0]), text)
    foreign = sum(letter.isalpha() and letter not in "\u00aa\u00ba" and ord(letter) > 0x24F for letter in mixed)
    letters = sum(letter.isalpha() for letter in mixed)
    return mixed if foreign * 4 <= letters else text


def _latin_word(word: str) -> str:
    """A word of which every letter is Latin or looks it, or the word as it is; a letter alone is a symbol."""
    if len(word) < 2:
        return word
    found = word.translate(_LATIN)
    return found if all(ord(letter) <= 0x24F for letter in found if letter.isalpha()) else word
