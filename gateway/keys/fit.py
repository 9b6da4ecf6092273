"""Whether a gateway with these settings can serve a key as its file says."""

from __future__ import annotations

from collections.abc import Callable

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.keys.file import Entry, read
from gateway.keys.ring import Ring
from gateway.record.metrics import Unrecorded


def fitting(config: Config) -> int:
    """How many keys the file has, each fit to be served. Raises `ConfigError`."""
    if config.keys_file is None:
        return 0
    Ring(config.keys_file, (), Unrecorded(), fit(config)).open()
    return len(read(config.keys_file))


def fit(config: Config) -> Callable[[Entry], None]:
    """A check of one entry, which raises `ConfigError`."""

    def check(entry: Entry) -> None:
        if entry.policy is not None and not (config.policies() / entry.policy / "config.yml").is_file():
            raise ConfigError(f"policy - {config.policies()}/{entry.policy}/config.yml: no such file")
        if entry.caller().limited and config.workers > 1 and config.limits.storage is None:
            raise ConfigError(
                f"has limits, which {config.workers} workers would each count on their own; "
                "set limits.storage to a Redis that they share"
            )

    return check
