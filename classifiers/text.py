"""Light normalisation of text before a classifier reads it. Not a defence against every disguise: homoglyphs stay."""

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


def normalise(text: str) -> str:
    """NFKC, invisible characters and lone surrogates removed, whitespace runs collapsed to one space."""
    text = unicodedata.normalize("NFKC", _SURROGATES.sub("", text))
    return _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
