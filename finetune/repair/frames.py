"""Words and short frames of a text: what may trigger a refusal, and how a text reads without it.

A frame is two or three neighbouring words, or the opening of a text (marked by a leading `^`): "how do i", "^write me".
"""

from __future__ import annotations

import re
from functools import cache

OPENING = "^"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
# Forms of a word that count as the word: a trigger's contrast rows may have "stole" only where it is a trigger itself.
_ENDINGS = r"(?:s|es|ed|d|ing|er|ers|'s|\u2019s)?"
_LONGEST = 3


def parts(text: str) -> set[str]:
    """Words and frames, in lower case."""
    words = [match.group().lower() for match in _WORD.finditer(text)]
    found = set(words)
    for size in range(2, _LONGEST + 1):
        found.update(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
        if len(words) > size:
            found.add(OPENING + " ".join(words[:size]))
    return found


def is_frame(part: str) -> bool:
    return part.startswith(OPENING) or " " in part


def words_of(part: str) -> list[str]:
    return part.removeprefix(OPENING).split()


@cache
def _pattern(part: str, forms: bool) -> re.Pattern[str]:
    words = r"[\W\d_]+".join(map(re.escape, words_of(part)))
    start = r"\A[\W\d_]*" if part.startswith(OPENING) else ""
    ending = _ENDINGS if forms and not is_frame(part) else ""
    return re.compile(rf"{start}(?<![^\W\d_]){words}{ending}(?![^\W\d_])", re.IGNORECASE)


def holds(text: str, part: str, forms: bool = True) -> bool:
    """Whether a text has a word (with `forms`: or a form of it) or a frame."""
    return _pattern(part, forms).search(text) is not None


def without(text: str, part: str) -> str:
    """The text with the word or frame left out wherever it stands."""
    return " ".join(_pattern(part, False).sub(" ", text).split())
