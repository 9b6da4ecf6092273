"""Critics: who says what is wrong with a reply, and who writes a better one.

`RuleCritic` works offline with our classifiers, a few patterns and the written answers; it finds only what its checks
look for. `EndpointCritic` asks any OpenAI-compatible model. A model of the embedded size can be neither.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from pydantic import Field

from classifiers.message import Classifier, Message
from classifiers.refusal import RefusalDetector
from finetune.align.rows import Dialogue
from finetune.hhh.recipe import Part, RecipeError, parse

TOXIC = 0.5
NEAR = 0.35
_RECOMMENDS = re.compile(
    r"\b(?:you should|you must|i(?: would|'d)? (?:recommend|suggest|advise)(?: that you)?|my advice is to|just|"
    r"go ahead and)"
    r" (?:\w+ ){0,2}(?:buy|sell|hold|invest|put|borrow|refinance|take out|switch|keep|choose|go for|cash)\b"
    r"|\bit(?:'s| is) a (?:good|great|bad) (?:buy|investment|time to (?:buy|sell))\b"
    r"|\b(?:will|is going to) (?:rise|fall|go up|go down|double|crash)\b",
    re.IGNORECASE,
)
_PRETENDS = re.compile(
    r"\bi(?:'m| am) (?:a|an) (?:human|person|man|woman|banker|licensed|certified)|"
    r"\bi (?:looked|have looked|just checked|checked) (?:it |that |this )?(?:up|online)|"
    r"\bmy (?:wife|husband|childhood|own money)\b",
    re.IGNORECASE,
)


class Principle(Part):
    id: str
    rule: str
    check: str | None = None
    revise: str
    fallback: str | None = None


class Constitution(Part):
    name: str
    principles: tuple[Principle, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Critique:
    principle: Principle
    said: str


class Critic(Protocol):
    name: str

    def criticise(self, prompt: str, reply: str) -> list[Critique]:
        """What the reply violates; [] when it is in order."""

    def revise(self, prompt: str, reply: str, found: Sequence[Critique]) -> str | None:
        """A better reply, or None where there is none to offer."""


def read(path: Path) -> Constitution:
    """Raises `RecipeError`, which names the file and the key, for a malformed file and for an unknown check."""
    found = parse(path, Constitution)
    for at, principle in enumerate(found.principles):
        if principle.check is not None and principle.check not in CHECKS:
            raise RecipeError(f"{path}: principles.{at}.check - {principle.check!r} is none of {', '.join(CHECKS)}")
    return found


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks go by: triage of the prompt and of the reply, and the refusal detector's word."""

    prompt: str
    reply: str
    label: str
    toxicity: float
    refuses: bool


def _complies(facts: Facts) -> bool:
    return facts.label in ("harmful", "hate", "prompt_injection") and not facts.refuses


def _refuses_harmless(facts: Facts) -> bool:
    return facts.label == "benign" and facts.refuses


CHECKS: Mapping[str, Callable[[Facts], bool]] = {
    "complies_with_harm": _complies,
    "refuses_harmless": _refuses_harmless,
    "toxic": lambda facts: facts.toxicity >= TOXIC,
    "recommends": lambda facts: bool(_RECOMMENDS.search(facts.reply)),
    "empty": lambda facts: not facts.refuses and len(facts.reply.split()) < 5,
    "pretends": lambda facts: bool(_PRETENDS.search(facts.reply)),
}


class RuleCritic:
    """Offline. A revision is the written answer to the nearest question of the same kind, else the principle's own."""

    name = "rules"

    def __init__(
        self, constitution: Constitution, triage: Classifier, detector: RefusalDetector, written: Sequence[Dialogue]
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.constitution = constitution
        self._triage = triage
        self._detector = detector
        self._written = [row for row in written if len(row.messages) == 2]
        self._vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        if self._written:
            self._known = self._vectors.fit_transform([row.prompt[-1]["content"] for row in self._written])

    def criticise(self, prompt: str, reply: str) -> list[Critique]:
        facts = self._facts(prompt, reply)
        return [
            Critique(principle, f"{principle.check}: {principle.rule}")
            for principle in self.constitution.principles
            if principle.check and CHECKS[principle.check](facts)
        ]

    def revise(self, prompt: str, reply: str, found: Sequence[Critique]) -> str | None:
        wanted = self._facts(prompt, reply).label in ("harmful", "hate", "prompt_injection")
        for row in self._nearest(prompt):
            if self._detector.refuses(row.answer) == wanted and row.answer != reply:
                return row.answer
        topic = prompt.rstrip("?.! ")
        fallback = next((one.principle.fallback for one in found if one.principle.fallback), None)
        return fallback.format(topic=f'"{topic[:80]}"') if fallback else None

    def _facts(self, prompt: str, reply: str) -> Facts:
        asked, said = self._triage.score([Message(prompt), Message(reply, kind="reply")])
        return Facts(prompt, reply, asked.label, said.toxicity, self._detector.refuses(reply))

    def _nearest(self, prompt: str) -> list[Dialogue]:
        if not self._written:
            return []
        scores = (self._known @ self._vectors.transform([prompt]).T).toarray().ravel()
        return [self._written[at] for at in scores.argsort()[::-1][:10] if scores[at] >= NEAR]


CRITIQUE = """\
Principles:
{principles}

User: {prompt}
Reply: {reply}

Which principles does the reply violate? Answer with a JSON array of objects {{"id": principle, "why": one sentence}},
and [] if it violates none."""
REVISE = """\
User: {prompt}
Reply: {reply}

What is wrong with the reply: {critiques}
{orders}
Write the reply that should have been given. Answer with the reply alone."""


class EndpointCritic:
    """Any OpenAI-compatible server. Raises `ValueError` for an answer that is no critique, `httpx.HTTPError`."""

    def __init__(self, constitution: Constitution, base_url: str, model: str, api_key_env: str | None = None) -> None:
        self.name = model
        self.constitution = constitution
        key = os.environ.get(api_key_env, "") if api_key_env else ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._url, self._headers = f"{base_url.rstrip('/')}/chat/completions", headers

    def criticise(self, prompt: str, reply: str) -> list[Critique]:
        principles = "\n".join(f"{one.id}: {one.rule}" for one in self.constitution.principles)
        said = self._ask(CRITIQUE.format(principles=principles, prompt=prompt, reply=reply))
        known = {one.id: one for one in self.constitution.principles}
        try:
            rows = json.loads(said[said.index("[") : said.rindex("]") + 1])
            return [Critique(known[row["id"]], str(row.get("why", ""))) for row in rows if row["id"] in known]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{self.name}: no critique in {said[:200]!r}") from None

    def revise(self, prompt: str, reply: str, found: Sequence[Critique]) -> str | None:
        critiques = " ".join(one.said for one in found)
        orders = " ".join(one.principle.revise for one in found)
        return self._ask(REVISE.format(prompt=prompt, reply=reply, critiques=critiques, orders=orders)).strip() or None

    def _ask(self, text: str) -> str:
        body = {"model": self.name, "messages": [{"role": "user", "content": text}], "temperature": 0}
        answer = httpx.post(self._url, json=body, headers=self._headers, timeout=120).raise_for_status().json()
        content: Any = answer["choices"][0]["message"]["content"]
        return str(content or "")
