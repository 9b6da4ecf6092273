"""How long the phrases are that a policy's patterns look for, so that a stream holds back at least as much."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A pattern without a bound is taken for as long as it must be at least; no pattern makes a stream hold back more.
MOST = 1024


def reach(patterns: Iterable[str]) -> int:
    """The length in characters of the longest text that any of these patterns matches, as far as that is bounded."""
    return max(map(_width, patterns), default=0)


def _width(pattern: str) -> int:
    try:
        least, most = re._parser.parse(pattern).getwidth()  # type: ignore[attr-defined]
    except (re.error, RecursionError):  # not ours to judge: whose pattern it is says what is wrong with it
        return 0
    return int(most if most <= MOST else min(least, MOST))
