"""The standing probes: messages whose right treatment is known, one JSON Lines file per suite.

Written for this purpose alone. They are never trained on: a probe that the classifier has seen measures nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from classifiers.labels import CATEGORIES, LABELS, label_of
from gateway.errors import ConfigError
from gateway.guard.policy import Policy
from gateway.probes.result import Expected

SHIPPED = Path(__file__).parent / "suites"


@dataclass(frozen=True, slots=True)
class Probe:
    """`expected`: what a policy that routes the label by default should do. `category`: what the text is."""

    id: str
    suite: str
    text: str
    expected: Expected
    category: str

    def expected_of(self, policy: Policy) -> Expected:
        """What this policy should do: where it lets a label through, nothing of that label is to be held up."""
        label = label_of(self.category)
        if label == "benign" or policy.routes.get(label):
            return self.expected
        return "answered"


def load(folder: Path | None) -> tuple[Probe, ...]:
    """All suites of a folder (None: the shipped ones), a file each. Raises `ConfigError` that names file and line."""
    where = folder or SHIPPED
    paths = sorted(where.glob("*.jsonl"))
    if not paths:
        raise ConfigError(f"probes.folder: no *.jsonl in {where}")
    probes = tuple(probe for path in paths for probe in _suite(path))
    seen: set[str] = set()
    for probe in probes:
        if probe.id in seen:
            raise ConfigError(f"{where}: the id {probe.id} is there twice")
        seen.add(probe.id)
    return probes


def _suite(path: Path) -> list[Probe]:
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_probe(path.stem, json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
                raise ConfigError(f"{path}:{number}: {what}") from None
    return found


def _probe(suite: str, row: dict[str, Any]) -> Probe:
    probe = Probe(str(row["id"]), suite, row["text"], row["expected"], row.get("category", "benign"))
    if not isinstance(probe.text, str) or not probe.text.strip():
        raise ValueError("text must be a string that says something")
    if probe.expected not in get_args(Expected):
        raise ValueError(f"expected must be one of {', '.join(get_args(Expected))}")
    if probe.category not in (*LABELS, *CATEGORIES):
        raise ValueError(f"unknown category {probe.category}")
    return probe
