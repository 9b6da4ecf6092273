"""`hhh serve --workers N`."""

from __future__ import annotations

from gateway.config import Config


def supervise(config: Config) -> int:
    raise NotImplementedError
