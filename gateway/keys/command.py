"""`hhh keys`: make, list and revoke the keys of a file. A secret is shown once, and never again."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from gateway.errors import ConfigError
from gateway.keys import secret
from gateway.keys.file import Entry, edited, read

_AGE = re.compile(r"(\d{1,6})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def create(path: Path, name: str, **options: Any) -> tuple[Entry, str]:
    """A new key in the file, and its secret. `options`: as in the file, None where not given.

    Raises `ConfigError` where the name is taken, also by a key that was revoked: records would mix the two up.
    """
    id, made = secret.new()
    given = {option: value for option, value in options.items() if value is not None}
    try:
        entry = Entry(id=id, name=name, hash=f"sha256:{secret.digest(made).hex()}", created=_now(), **given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))} - {first['msg']}") from None
    with edited(path) as entries:
        if any(other.name == name for other in entries):
            raise ConfigError(f"{path}: there is a key {name} already")
        entries.append(entry)
    return entry, made


def revoke(path: Path, which: str) -> Entry:
    """Revoke a key by its name or id; it stays in the file, so that its name stays its own. Raises `ConfigError`."""
    with edited(path) as entries:
        for number, entry in enumerate(entries):
            if which in (entry.name, entry.id):
                entries[number] = entry if entry.revoked else entry.model_copy(update={"revoked": _now()})
                return entries[number]
        raise ConfigError(f"{path}: there is no key {which}")


def listed(path: Path) -> list[dict[str, Any]]:
    """What the file says of each key, and its state; without hashes."""
    now = _now()
    rows = [{"state": entry.state(now), **entry.row()} for entry in read(path)]
    return [{name: value for name, value in row.items() if name != "hash"} for row in rows]


def table(rows: list[dict[str, Any]]) -> Table:
    """The same for people."""
    found = Table("name", "id", "state", "role", "policy", "limits", "models", "expires")
    for row in rows:
        limits = [
            f"{row[name]:,} {unit}"
            for name, unit in (
                ("requests_per_minute", "requests/min"),
                ("tokens_per_minute", "tokens/min"),
                ("concurrent", "at once"),
            )
            if name in row
        ]
        found.add_row(
            row["name"],
            row["id"],
            row["state"],
            row.get("role", "client"),
            row.get("policy", "default"),
            ", ".join(limits) or "none",
            ", ".join(row.get("models", ["all"])),
            row.get("expires", "never"),
        )
    return found


def moment(text: str | None) -> datetime | None:
    """`90d`, `12h`, `4w` from now on, or a date, or a date and time in ISO 8601; UTC where it says no zone."""
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age is not None:
        return _now() + timedelta(hours=int(age[1]) * _HOURS[age[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--expires: {text} is neither a date such as 2027-01-31 nor an age such as 90d") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
