"""Who calls, and what they may: what a key means once it has been found to be good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from gateway.call import OnBlock

Role = Literal["client", "admin"]


@dataclass(frozen=True, slots=True)
class Caller:
    """`name` is the key's, "" where no key is asked for. None in a field: no limit, or what the configuration says."""

    name: str
    role: Role = "client"
    policy: str | None = None
    on_block: OnBlock | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    models: tuple[str, ...] | None = None
    expires: datetime | None = None
    revoked: datetime | None = None

    def may_use(self, model: str) -> bool:
        """Whether a model is among those of the key; of a key that names none, every one is."""
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)

    @property
    def limited(self) -> bool:
        return any(limit is not None for limit in (self.requests_per_minute, self.tokens_per_minute, self.concurrent))


# Where no key is configured: on loopback, whoever has the machine.
ANYONE = Caller("", role="admin")
