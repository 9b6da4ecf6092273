"""The policies in force, by name. A request takes its guard from here once, and keeps it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from gateway.guard.rails import Guard


class Policies:
    """Guards by the name of their policy. What changes is one reference, so that no request sees half a policy."""

    def __init__(self, guards: Mapping[str, Guard], default: str) -> None:
        self.default = default
        self._guards: Mapping[str, Guard] = MappingProxyType(dict(guards))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._guards)

    def get(self, name: str | None = None) -> Guard:
        """The guard of a policy as it is now; of the default one where none is named. Raises `KeyError`."""
        return self._guards[name or self.default]

    def swap(self, guards: Mapping[str, Guard]) -> Mapping[str, Guard]:
        """Put these in force, all at once; policies that are not named stay. Returns those that were replaced.

        Requests under way still use what was replaced: closing it is the caller's, once they have ended.
        """
        before = self._guards
        self._guards = MappingProxyType({**before, **guards})
        return {name: before[name] for name in guards if name in before}

    async def close(self) -> None:
        """Let go of the engines of all that is in force."""
        await asyncio.gather(*(guard.close() for guard in self._guards.values()))
