"""How many tokens a request counts for: a guess before, as OpenAI guesses, and what was used after."""

from __future__ import annotations

import math
from typing import Any

from gateway.call import Call
from gateway.record.observation import Observation

# Of English text, about; there is no tokenizer here that is the model server's.
_CHARACTERS = 4
_ASKED = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def before(call: Call) -> int:
    """The greater of what the text comes to and what the request allows for the reply, as OpenAI counts it."""
    allowed = max((_number(call.body.get(name)) for name in _ASKED), default=0)
    return max(1, _tokens(call.characters), allowed * call.choices)


def after(call: Call, seen: Observation) -> int:
    """What the model server says it used.

    Where it says nothing: nothing for what never reached it or what it failed at, else the texts on both sides.
    """
    if seen.spent is not None:
        return seen.spent
    if not seen.spoken and (seen.decision == "error" or (seen.decision == "block" and not seen.upstream_seconds)):
        return 0
    return _tokens(call.characters + seen.spoken)


def _tokens(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS)


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
