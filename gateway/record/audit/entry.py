"""What is kept of one decision, and what a request needs of whoever keeps it. No database here."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


def new_id() -> str:
    """Unique, and in the order of time, so that an index grows at its end."""
    return f"{time.time_ns():016x}{secrets.token_hex(6)}"


def fingerprint(text: str) -> str:
    """The sha256 of a text. A short text can be guessed from it: it tells texts apart, it does not hide them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. `at`: seconds since 1970, UTC; `text`: what was new in the request, None where it is not kept.

    `source`: who refused (as in refusals_total; `model`: the model itself), "" where nobody did. `weights`: the first
    hex digits of triage's sha256, so that a change of the classifier shows.
    """

    request_id: str
    key: str
    endpoint: str
    policy: str
    policy_version: str
    weights: str
    decision: str
    label: str
    category: str
    score: float
    scores: Mapping[str, float]
    route: str
    tier: str
    stage: str
    rail: str
    source: str
    error: str
    stream: bool
    total_ms: float
    guard_ms: float
    upstream_ms: float
    sha256: str
    text: str | None = None
    at: float = field(default_factory=time.time)
    id: str = field(default_factory=new_id)


class Audit(Protocol):
    """Keeps entries. What cannot be kept is counted; whether that stops a reply is the configuration's to say."""

    def shown(self, text: str) -> str | None:
        """What of a text an entry is given: None, or its beginning."""

    def admit(self) -> None:
        """Raises `gateway.errors.AuditFailed` where no reply may go out without a record, and none can be kept."""

    def add(self, entry: Entry) -> None:
        """Keep it soon, with others."""

    async def keep(self, entry: Entry) -> None:
        """Returns when it is on disk. Raises `AuditFailed` when it is not, and no reply may go out without."""
