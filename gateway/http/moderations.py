"""POST /v1/moderations: OpenAI's shape, answered by the gateway's own classifiers. Nothing goes to the model server.

OpenAI's categories are coarser than ours in places and finer in others: what no category of theirs says (an attempt to
override instructions, a question for regulated advice) is in `guardrails` only, and flags nothing. Pictures are not
looked at.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from classifiers.labels import label_of
from classifiers.message import Judgement
from gateway.errors import BadRequest, TooLarge
from gateway.forms.texts import unchecked_parts
from gateway.forms.valid import MOST_INPUTS, check_case, check_content, missing
from gateway.http.exchange import answered, read_body
from gateway.http.requests import check_characters, parse_json
from gateway.http.service import Visit

# At or over this score a category is flagged.
FLAGGED = 0.5

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip

# OpenAI's categories for a label of ours, and for those of our categories that say more.
_OF_LABEL: Mapping[str, tuple[str, ...]] = {"harmful": ("illicit",), "hate": ("hate",), "self_harm": ("self-harm",)}
_OF_CATEGORY: Mapping[str, tuple[str, ...]] = {
    "harmful.weapons": ("illicit", "illicit/violent"),
    "harmful.extremism": ("illicit", "illicit/violent"),
    "harmful.violence": ("violence",),
    "harmful.sexual": ("sexual",),
    "harmful.sexual_minors": ("sexual", "sexual/minors"),
    "harmful.harassment": ("harassment",),
    "hate.threat": ("hate", "hate/threatening"),
    "self_harm.intent": ("self-harm", "self-harm/intent"),
    "self_harm.ideation": ("self-harm", "self-harm/intent"),
    "self_harm.method": ("self-harm", "self-harm/instructions"),
}


async def moderations(request: Request, visit: Visit) -> Response:
    """One result per string; one for all parts of an array of parts."""
    limits, seen = visit.config.limits, visit.seen
    body = parse_json(await read_body(request, limits.body_bytes))
    check_case(body, None)
    texts, unchecked = _inputs(body.get("input"))
    check_characters(sum(map(len, texts)), limits)
    seen.carries(unchecked)
    with seen.time("triage"):
        judged = await visit.pipeline.guard.judge(texts, seen)
    asked = body.get("model")
    content = {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": asked if isinstance(asked, str) and asked else "hhh-triage",
        "results": [_result(judgement) for judgement in judged],
    }
    return answered(content, seen)


def _inputs(given: Any) -> tuple[list[str], list[str]]:
    """The texts to judge, and the kinds of what is no text."""
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return [given], []
    if not isinstance(given, list):
        raise BadRequest("'input' must be a string or an array", param="input", code="invalid_type")
    if not given:
        raise BadRequest("'input' must not be empty", param="input", code="empty_array")
    if len(given) > MOST_INPUTS:
        raise TooLarge(f"at most {MOST_INPUTS} inputs are taken", param="input")
    if all(isinstance(one, str) for one in given):
        return list(given), []
    check_content(given, "input")
    texts = [part["text"] for part in given if isinstance(part.get("text"), str)]
    return ["\n".join(texts)], unchecked_parts(given)


def _result(judgement: Judgement) -> dict[str, Any]:
    scores = dict.fromkeys(CATEGORIES, 0.0)
    for label, score in judgement.scores.items():
        known = judgement.category if label_of(judgement.category) == label else label
        for category in _OF_CATEGORY.get(known, _OF_LABEL.get(label, ())):
            scores[category] = max(scores[category], score)
    scores["harassment"] = max(scores["harassment"], judgement.toxicity)
    flags = {category: score >= FLAGGED for category, score in scores.items()}
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": {category: round(score, 6) for category, score in scores.items()},
        "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
        "guardrails": {
            "label": judgement.label,
            "category": judgement.category,
            "scores": {label: round(score, 6) for label, score in judgement.scores.items()},
            "toxicity": round(judgement.toxicity, 6),
        },
    }
