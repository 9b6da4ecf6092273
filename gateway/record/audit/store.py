"""The audit store: SQLite by default, PostgreSQL by URL. Rows in, rows out; who waits for whom is `recorder`'s."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, Table, delete, event, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.config import Audit as Settings
from gateway.errors import ConfigError
from gateway.record.audit import schema
from gateway.record.audit.entry import Entry, new_id
from gateway.record.audit.schema import COMPARISONS, DECISIONS, FEEDBACK, PROBES

Row = Mapping[str, Any]

_NAMES = tuple(field.name for field in fields(Entry))
# How much is deleted at once, so that a purge never holds the database for long.
_PURGED_AT_ONCE = 5_000


class Store:
    """One database. Every write is one transaction, on disk when the call returns.

    Failures of the database are raised as they come, SQLAlchemy's or the driver's.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigError` for a URL that cannot be one, or a driver that is not installed."""
        url = _address(settings)
        self.retention_days = settings.retention_days
        self._patience = settings.timeout_seconds
        options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}
        if url.drivername.startswith("sqlite"):
            options = {"connect_args": {"timeout": settings.timeout_seconds}}
        try:
            self._engine: AsyncEngine = create_async_engine(url, **options)
        except ModuleNotFoundError as error:
            extra = "; pip install 'hhh-gateway[postgres]'" if error.name == "asyncpg" else ""
            raise ConfigError(f"audit.url: {error.name} is not installed{extra}") from None
        if url.drivername.startswith("sqlite"):
            event.listen(self._engine.sync_engine, "connect", _prepare)
            self._insert: Any = sqlite.insert
        else:
            self._insert = postgresql.insert

    async def open(self) -> int:
        """Connect, and bring the schema up to date; its version. A new SQLite file is its owner's alone to read."""
        path = self._engine.url.database
        if self._engine.url.drivername.startswith("sqlite") and path and path != ":memory:":
            with suppress(OSError):  # connecting says it better
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        if self._engine.url.drivername.startswith("sqlite"):
            await self._write_ahead()
        return await schema.upgrade(self._engine)

    async def _write_ahead(self) -> None:
        """Put the file into WAL mode, where it then stays: readers do not stop the writer.

        SQLite does not wait for its busy timeout here: two gateways that start at once would get "database is locked".
        """
        patient_until = time.monotonic() + self._patience
        while True:
            try:
                async with self._engine.connect() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
            except OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patient_until:
                    raise
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._engine.dispose()

    async def write(self, entries: Sequence[Entry]) -> None:
        """Keep entries. One that is there already is left as it is, so that a write in doubt can be repeated."""
        rows = [_row(entry) for entry in entries]
        async with self._engine.begin() as connection:
            await connection.execute(self._insert(DECISIONS).on_conflict_do_nothing(index_elements=["id"]), rows)

    async def write_probes(self, rows: Sequence[Row]) -> None:
        """Keep one run of probes."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(PROBES), [{"id": new_id(), **row} for row in rows])

    async def write_comparisons(self, rows: Sequence[Row]) -> None:
        """Keep what a candidate would have made of requests."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(COMPARISONS), [dict(row) for row in rows])

    async def find(self, request_id: str, key: str, decision_id: str = "") -> Row | None:
        """The newest decision of that request id which this key may speak of: with a key, only its own.

        `decision_id`: that one, where a client has used a request id twice.
        """
        query = select(DECISIONS).where(DECISIONS.c.request_id == request_id)
        if decision_id:
            query = query.where(DECISIONS.c.id == decision_id)
        if key:
            query = query.where(DECISIONS.c.key == key)
        rows = await self.rows(query.order_by(DECISIONS.c.id.desc()).limit(1))
        return rows[0] if rows else None

    async def add_feedback(self, decision_id: str, verdict: str, category: str, note: str) -> None:
        """Keep what somebody thinks of a decision; of several opinions the last one counts."""
        row = {"id": new_id(), "decision_id": decision_id, "at": time.time(), "verdict": verdict}
        async with self._engine.begin() as connection:
            await connection.execute(insert(FEEDBACK), [{**row, "category": category, "note": note}])

    async def rows(self, query: Select[Any]) -> list[Row]:
        """What a query finds."""
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def purge(self, now: float | None = None) -> int:
        """Delete what is older than the retention, decisions with their feedback; how many decisions went."""
        if not self.retention_days:
            return 0
        before = (now or time.time()) - self.retention_days * 86_400
        gone = 0
        while True:
            async with self._engine.begin() as connection:
                deleted = (await connection.execute(_oldest(DECISIONS, DECISIONS.c.at < before))).rowcount
            gone += deleted
            if deleted < _PURGED_AT_ONCE:
                break
            await asyncio.sleep(0.05)
        async with self._engine.begin() as connection:
            for table in (PROBES, COMPARISONS):
                await connection.execute(delete(table).where(table.c.at < before))
        return gone

    async def count(self, table: Table) -> int:
        """How many rows a table has."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


def _row(entry: Entry) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in _NAMES}
    row["text"] = _storable(entry.text)
    return row


def _storable(text: str | None) -> str | None:
    """PostgreSQL takes no NUL, and neither database takes half of a surrogate pair."""
    return text and text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _oldest(table: Table, old: ColumnElement[bool]) -> Delete:
    chosen = select(table.c.id).where(old).order_by(table.c.id).limit(_PURGED_AT_ONCE)
    return delete(table).where(table.c.id.in_(chosen))


def _address(settings: Settings) -> URL:
    try:
        url = make_url(settings.url or "")
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"audit.url: {str(error).splitlines()[0]}") from None
    password = settings.password()
    return url.set(password=password) if password is not None else url


def _prepare(connection: Any, _: Any) -> None:
    """FULL: a commit is on disk, not merely in the kernel's hands."""
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
