"""The keys that are accepted now: those of `keys_file`, which is read again as soon as it changes, and the variable's.

Every request looks at the file's time and inode, two microseconds, so that a key that was revoked is refused from the
next request on. A file that is wrong changes nothing, and is said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gateway.errors import ConfigError, Unauthorized
from gateway.keys import file, secret
from gateway.keys.caller import ANYONE, Caller
from gateway.keys.file import Entry
from gateway.record.metrics import Metrics

_Mark = tuple[int, int, int]


class Ring:
    """`given`: keys without properties of their own, called `env-1`, `env-2`, ...

    `fit` raises `ConfigError` for an entry that this gateway cannot serve. With neither a file nor `given`, every
    request passes (and the host is loopback).
    """

    def __init__(
        self, path: Path | None, given: tuple[str, ...], metrics: Metrics, fit: Callable[[Entry], None]
    ) -> None:
        self._path = path
        self._given = [
            (secret.digest(key.encode().decode("latin-1")), Caller(f"env-{number}"))
            for number, key in enumerate(given, 1)
        ]
        self._metrics = metrics
        self._fit = fit
        self._mark: _Mark | None = None
        self._entries: Mapping[str, tuple[bytes, Caller]] = {}
        self.failure = ""

    def open(self) -> None:
        """Read the file for the first time. Raises `ConfigError`."""
        if self._path is not None:
            self._mark = _mark(self._path)
            self._take()

    def refresh(self) -> bool:
        """Read the file again if it has changed; whether other keys are in force now."""
        if self._path is None or (mark := _mark(self._path)) == self._mark:
            return False
        self._mark = mark
        try:
            self._take()
        except ConfigError as error:
            self.failure = str(error)
            self._metrics.count("key_file_loads_total", result="rejected")
            structlog.get_logger().error("keys file rejected, the keys before it stay", error=self.failure)
            return False
        structlog.get_logger().info("keys file loaded", keys=len(self._entries))
        return True

    @property
    def callers(self) -> tuple[Caller, ...]:
        return (*(caller for _, caller in self._given), *(caller for _, caller in self._entries.values()))

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that keys name."""
        return tuple(dict.fromkeys(caller.policy for caller in self.callers if caller.policy is not None))

    @property
    def asks(self) -> bool:
        """Whether a key is asked for."""
        return self._path is not None or bool(self._given)

    @property
    def state(self) -> str:
        """What /readyz?verbose says: how many there are, and why a change of the file is not in force."""
        if not self.asks:
            return "none: whoever reaches this address may do everything"
        count = f"{len(self.callers)} keys"
        return f"{count}; not read again: {self.failure}" if self.failure else count

    def find(self, given: str) -> Caller:
        """Whose key it is; `given` as a header's bytes are read. Raises `Unauthorized`."""
        if not self.asks:
            return ANYONE
        digest = secret.digest(given)
        kept, caller = self._entries.get(secret.id_of(given), (None, None))
        matches = [caller] if secret.same(digest, kept) else []
        # Each of these is compared, so that the time taken says nothing; of the file's, one that is found by its id.
        matches += [one for other, one in self._given if secret.same(digest, other)]
        if not matches or matches[0] is None:
            raise Unauthorized("Incorrect API key provided.")
        found = matches[0]
        if found.revoked is not None:
            raise Unauthorized("This API key has been revoked.")
        if found.expires is not None and found.expires <= datetime.now(UTC):
            raise Unauthorized("This API key has expired.")
        return found

    def _take(self) -> None:
        assert self._path is not None
        entries = file.read(self._path)
        for entry in entries:
            try:
                self._fit(entry)
            except ConfigError as error:
                raise ConfigError(f"{self._path}: key {entry.name} - {error}") from None
        self._entries = {entry.id: (entry.digest, entry.caller()) for entry in entries}
        self.failure = ""
        self._metrics.count("key_file_loads_total", result="loaded")


def _mark(path: Path) -> _Mark | None:
    """What is another as soon as the file is; a symbolic link is followed, as of Kubernetes' mounted Secrets."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
