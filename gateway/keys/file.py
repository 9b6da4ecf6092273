"""`keys_file`: a JSON file of keys, each with its hash and what it may do. Read strictly, written atomically.

JSON and not YAML: it is read while a request waits, and a thousand keys take milliseconds instead of seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.call import OnBlock
from gateway.errors import ConfigError
from gateway.keys.caller import Caller, Role

MOST_KEYS = 5_000
NAME = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"


class Entry(BaseModel):
    """One key as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{12}$")
    name: str = Field(pattern=NAME)
    hash: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    created: AwareDatetime
    role: Role = "client"
    policy: str | None = Field(None, pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    on_block: OnBlock | None = None
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrent: int | None = Field(None, ge=1)
    models: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, min_length=1)
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.hash.removeprefix("sha256:"))

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"

    def caller(self) -> Caller:
        return Caller(**self.model_dump(exclude={"id", "hash", "created"}))

    def row(self) -> dict[str, Any]:
        """As the file has it: what is not set is not there."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Entry, ...] = Field(max_length=MOST_KEYS)

    @model_validator(mode="after")
    def _distinct(self) -> Keys:
        for what in ("id", "name"):
            values = Counter(getattr(entry, what) for entry in self.keys)
            for value, times in values.most_common(1):
                if times > 1:
                    raise ValueError(f"the {what} {value} is there twice")
        return self


def read(path: Path) -> tuple[Entry, ...]:
    """The keys of a file. Raises `ConfigError` that names the file and the key."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_object)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `hhh keys create` makes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    try:
        return Keys.model_validate(content).keys
    except ValidationError as error:
        first = error.errors(include_input=False)[0]  # a message must not show a hash
        place = ".".join(str(part) for part in first["loc"]) or "keys"
        raise ConfigError(f"{path}: {place} - {first['msg'].removeprefix('Value error, ')}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same member twice")
    return found


def write(path: Path, entries: tuple[Entry, ...]) -> None:
    """Replace the file in one step. A new one is its owner's alone to read; one that was there stays whose it was."""
    path = path.resolve()
    content = json.dumps({"keys": [entry.row() for entry in entries]}, indent=1) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        with suppress(FileNotFoundError, PermissionError):
            before = path.stat()
            os.fchmod(file.fileno(), before.st_mode & 0o777)
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextmanager
def edited(path: Path) -> Iterator[list[Entry]]:
    """The entries to change in place, written at the end; two edits at once wait for each other."""
    beside = path.with_name(f".{path.name}.lock")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = list(read(path)) if path.exists() else []
        yield entries
        if len(entries) > MOST_KEYS:
            raise ConfigError(f"{path}: over {MOST_KEYS} keys")
        write(path, tuple(entries))
