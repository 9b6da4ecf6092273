"""A policy: `rails/<name>/policy.yml`, read and validated. NeMo's own files beside it are read by `nemo.py`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from classifiers.labels import CATEGORIES, LABELS
from gateway.call import Route
from gateway.config import read_yaml
from gateway.errors import ConfigError
from gateway.guard.lane import UNNAMED, rail_name

# From the mildest to the strictest; where labels disagree the strictest wins.
ROUTES: tuple[Route, ...] = ("allow", "advise", "review", "refuse")
RISKS = tuple(label for label in LABELS if label != "benign")
FailMode = Literal["closed", "open"]


def _known_label(label: str) -> str:
    if label not in RISKS:
        raise ValueError(f"unknown label; known are {', '.join(RISKS)}")
    return label


def _known_category(category: str) -> str:
    if category not in ("default", "rail") and category not in LABELS and category not in CATEGORIES:
        raise ValueError("unknown category; use a label, a category, `rail` or `default`")
    return category


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


Label = Annotated[str, AfterValidator(_known_label)]
Category = Annotated[str, AfterValidator(_known_category)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Score = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[str, Field(min_length=1)]

# Where weights bring no operating points of their own.
DEFAULT_POINTS: Mapping[str, Mapping[str, float]] = {
    "harmful": {"act": 0.7, "doubt": 0.4},
    "hate": {"act": 0.7, "doubt": 0.4},
    "self_harm": {"act": 0.6, "doubt": 0.3},
    "prompt_injection": {"act": 0.8, "doubt": 0.4},
    "regulated_advice": {"act": 0.5, "doubt": 0.3},
}
Points = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Per operating point and label: from which score on triage is in doubt, and from which one it acts."""
Routes = Mapping[str, Mapping[Route, float]]
DEFAULT_REFUSAL = "I can't help with that. If there is something else I can do for you, please ask."
DEFAULT_GUIDANCE = (
    "Give no personal recommendation. Explain the general considerations, and say what a licensed professional does."
)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Streaming(Section):
    window_tokens: int = Field(24, ge=1, description="Chunks after which held text is checked, sentence or not.")
    overlap_characters: int = Field(
        64,
        ge=0,
        description="Checked text still held back, so that no phrase of this length leaks in parts; more where the "
        "rails of replies look for a longer pattern.",
    )
    context_characters: int = Field(
        2000, ge=100, description="How much of what has been checked each check of the rails looks at again."
    )


class Toxicity(Section):
    input: Score | None = Field(None, description="New turns at or over this toxicity are refused; null: not checked.")
    output: Score | None = Field(None, description="Replies at or over this toxicity are blocked; null: not checked.")
    output_routes: frozenset[Route] = Field(
        frozenset({"allow", "advise", "review"}),
        description="Routes whose replies are checked; it costs a classification each.",
    )


class Example(Section):
    """What somebody says, what a tool returned, what the model replied; and what this policy must make of it."""

    message: Words | None = Field(None, description="What the user says.")
    tool: Words | None = Field(None, description="What a tool returned after it.")
    reply: Words | None = Field(None, description="What the model replied.")
    decision: Literal["allow", "advise", "modify", "refuse"] | None = None
    route: Route | None = None
    category: Category | None = Field(None, description="A category, or the label that it is one of.")
    rail: str | None = Field(None, description="The rail that decides; `triage` for triage.")

    @model_validator(mode="after")
    def _says_something(self) -> Example:
        if self.message is None and self.tool is None and self.reply is None:
            raise ValueError("message, tool or reply must be there")
        if self.decision is None and self.route is None and self.category is None and self.rail is None:
            raise ValueError("decision, route, category or rail must be there")
        return self


class Rules(Section):
    """`policy.yml`. Every key has a default, so that a folder with NeMo's `config.yml` alone is complete."""

    mode: Literal["enforce", "shadow"] = Field("enforce", description="`shadow` counts refusals and lets all through.")
    on_block: Literal["completion", "error"] = Field("completion", description="A block's shape on the wire.")
    refusal_style: Literal["content", "refusal", "both"] = Field("both", description="Fields that carry the words.")
    operating_point: Literal["strict", "balanced", "permissive"] = Field(
        "balanced", description="Which of the thresholds that come with triage's weights `routes` builds on."
    )
    routes: dict[Label, dict[Route, Score]] = Field(
        default={},
        description="Per label: the least score for each route. The highest threshold reached decides; of several "
        "labels, the strictest route. A label that is not named goes by the operating point; `{}` lets it through.",
    )
    other_languages: Route = Field(
        "review", description="The mildest route of a message in another language than English, which triage knows."
    )
    toxicity: Toxicity = Toxicity()
    colang_routes: frozenset[Route] = Field(
        frozenset({"review"}), description="Routes on which the Colang flows run; all four: always."
    )
    refusals: dict[Category, Words] = Field(default={}, description="Words per category, label, `rail`, `default`.")
    guidance: dict[Category, Words] = Field(default={}, description="System guidance per category on route advise.")
    patterns: dict[str, list[Pattern]] = Field(
        default={}, description="Named regular expressions that flows use: `execute matches(pattern=..., text=...)`."
    )
    streaming: Streaming = Streaming()
    fail_modes: dict[str, FailMode] = Field(
        default={},
        description="Per flow of config.yml, `triage`, `toxicity`, `nemo` (a failure that names no flow) or `default`; "
        "closed where not said.",
    )
    rail_timeout_seconds: float = Field(2, gt=0, description="A rail that takes longer has failed.")
    unchecked_content: Literal["allow", "refuse"] = Field(
        "allow", description="New images, sound, files and tokens, which no check reads: counted, or refused."
    )
    expect: tuple[Example, ...] = Field(
        (),
        description="Examples that must hold: `message`, `tool` (a tool's result) or `reply`, and what must come of "
        "it: `decision` (allow, advise, modify, refuse), `route`, `category`, `rail`.",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """A validated policy. `version` is `sha256:` and the first 16 hex digits over the folder's files."""

    name: str
    folder: Path
    version: str
    rules: Rules
    routes: Routes

    def route(self, scores: Mapping[str, float]) -> tuple[Route, str]:
        """The route for these scores, and the label that led to it.

        Each label leads to the route with the highest threshold that its score reaches (of equal ones, the stricter);
        of these the strictest wins.
        """
        led: list[tuple[int, float, str]] = []
        for label, score in scores.items():
            routes = self.routes.get(label, {}).items()
            reached = [(least, ROUTES.index(route)) for route, least in routes if score >= least]
            if reached:
                led.append((max(reached)[1], score, label))
        if not led or max(led)[0] == 0:
            return "allow", max(scores, key=lambda label: scores[label], default="benign")
        rank, _, label = max(led)
        return ROUTES[rank], label

    def refusal(self, category: str) -> str:
        return _most_specific(self.rules.refusals, category, DEFAULT_REFUSAL)

    def guidance(self, route: Route, category: str) -> str | None:
        """What the model is told: always on route `advise`; on `review` where the policy has words for the label."""
        if route not in ("advise", "review"):
            return None
        label = category.split(".")[0]
        if route == "review" and not {category, label} & self.rules.guidance.keys():
            return None
        return _most_specific(self.rules.guidance, category, DEFAULT_GUIDANCE)

    def fail_mode(self, rail: str) -> FailMode:
        return self.rules.fail_modes.get(rail, self.rules.fail_modes.get("default", "closed"))


def _most_specific(words: dict[str, str], category: str, otherwise: str) -> str:
    return words.get(category) or words.get(category.split(".")[0]) or words.get("default") or otherwise


def load(rails_dir: Path, name: str, points: Points | None = None) -> Policy:
    """Read `rails_dir/name`; `points` come with triage's weights. Raises `ConfigError` that names file and key."""
    folder = rails_dir / name
    if not (folder / "config.yml").is_file():
        raise ConfigError(f"{folder}/config.yml: no such file; a policy is a folder with NeMo's config.yml")
    path = folder / "policy.yml"
    try:
        rules = Rules.model_validate(read_yaml(path) if path.exists() else {})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise ConfigError(f"{path}: {key} - {first['msg'].removeprefix('Value error, ')}") from None
    known = {"default", "triage", "toxicity", UNNAMED, *_rails(folder / "config.yml")}
    for rail in rules.fail_modes:
        if rail not in known:
            raise ConfigError(f"{path}: fail_modes.{rail} - unknown rail; known are {', '.join(sorted(known))}")
    return Policy(name, folder, version(folder), rules, routes_of(rules, points or {}))


def routes_of(rules: Rules, points: Points) -> Routes:
    """Refused from where triage acts, reviewed from where it doubts; advice is never refused."""
    chosen = {**DEFAULT_POINTS, **points.get(rules.operating_point, {})}
    found: dict[str, Mapping[Route, float]] = {}
    for label, point in chosen.items():
        acts: Route = "advise" if label == "regulated_advice" else "refuse"
        found[label] = rules.routes.get(label, {acts: point["act"], "review": point["doubt"]})
    return found


def _rails(path: Path) -> set[str]:
    """The rails that a `config.yml` names; what else is wrong with it, `nemo.load` says."""
    rails = read_yaml(path).get("rails")
    sections = [rails.get(direction) for direction in ("input", "output")] if isinstance(rails, dict) else []
    flows = [section.get("flows") for section in sections if isinstance(section, dict)]
    return {rail_name(str(flow)) for found in flows if isinstance(found, list) for flow in found}


def version(folder: Path) -> str:
    """A hash of the names and contents of the policy's files. Hidden files and folders are no part of it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            digest.update(f"{name.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()[:16]}"
