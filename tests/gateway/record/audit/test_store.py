"""The store on SQLite and PostgreSQL: migrations, writes that can be repeated, feedback, retention."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from gateway.config import Audit
from gateway.errors import ConfigError
from gateway.record.audit import schema
from gateway.record.audit.schema import DECISIONS, FEEDBACK, METADATA, PROBES, STEPS
from gateway.record.audit.store import Store
from tests.gateway.record.audit.conftest import entry

Make = Callable[..., Audit]


def using(settings: Audit, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = Store(settings)
        try:
            await store.open()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def test_what_is_written_is_read(settings: Make) -> None:
    kept = entry(1, text="Zoë wants\n a \U0001f4b0 loan", stream=True, key="team-a")

    async def work(store: Store) -> Any:
        await store.write([kept, entry(2)])
        await store.write([kept])  # a write in doubt, repeated
        return await store.rows(select(DECISIONS).order_by(DECISIONS.c.id))

    first, second = using(settings(), work)
    assert first == {name: getattr(kept, name) for name in first}
    assert first["scores"] == {"harmful": 0.9, "benign": 0.1}
    assert second["text"] is None


def test_feedback_goes_to_the_newest_record_of_the_key(settings: Make) -> None:
    async def work(store: Store) -> Any:
        await store.write([entry(1, key="a"), entry(1, key="b"), entry(1, key="a", label="hate")])
        mine = await store.find("req_1", "a")
        assert mine is not None
        assert mine["label"] == "hate"
        assert (await store.find("req_1", ""))["label"] == "hate"  # type: ignore[index]
        assert await store.find("req_1", "c") is None
        assert await store.find("req_2", "") is None
        await store.add_feedback(mine["id"], "wrong_refusal", "", "it was a joke")
        return mine["id"], await store.rows(select(FEEDBACK))

    id, [row] = using(settings(), work)
    assert (row["decision_id"], row["verdict"], row["note"]) == (id, "wrong_refusal", "it was a joke")


def test_retention_deletes_what_is_old_with_its_feedback(settings: Make) -> None:
    day = 86_400
    old = [entry(number, at=time.time() - 8 * day) for number in range(5_200)]

    async def work(store: Store) -> Any:
        await store.write([*old, entry(9_999)])
        await store.add_feedback(old[0].id, "correct", "", "")
        probe = {name: "x" for name in [column.name for column in PROBES.c] if name not in ("id", "at", "score")}
        await store.write_probes([{**probe, "score": 0.1, "at": at} for at in (time.time(), time.time() - 9 * day)])
        gone = await store.purge()
        return gone, [await store.count(table) for table in (DECISIONS, FEEDBACK, PROBES)]

    assert using(settings(retention_days=7), work) == (5_200, [1, 0, 1])


def test_zero_days_keep_for_ever(settings: Make) -> None:
    async def work(store: Store) -> Any:
        await store.write([entry(at=1.0)])
        return await store.purge()

    assert using(settings(retention_days=0), work) == 0


def test_an_old_schema_is_brought_up_to_date(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "STEPS", STEPS[:1])

    async def write(store: Store) -> None:
        await store.write([entry(1)])

    using(settings(), write)
    monkeypatch.setattr(schema, "STEPS", STEPS)

    async def look(store: Store) -> Any:
        versions = await store.rows(select(schema.VERSION).order_by(schema.VERSION.c.version))
        return await store.count(DECISIONS), await store.count(PROBES), [row["version"] for row in versions]

    assert using(settings(), look) == (1, 0, [*range(1, len(STEPS) + 1)])


def test_a_step_is_whole_or_not_at_all(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "STEPS", (STEPS[0], ("CREATE TABLE more (id TEXT)", "CREATE NONSENSE")))
    with pytest.raises(Exception, match=r"(?i)syntax"):
        using(settings(), lambda store: store.rows(select(DECISIONS)))
    monkeypatch.setattr(schema, "STEPS", STEPS)

    async def look(store: Store) -> Any:
        with pytest.raises(Exception, match=r"(?i)more"):
            await store.rows(select(text("* FROM more")))
        return await store.count(DECISIONS)

    assert using(settings(), look) == 0


def test_a_newer_schema_is_left_alone(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "STEPS", (*STEPS, ("CREATE TABLE more (id TEXT)",)))
    using(settings(), lambda store: store.count(DECISIONS))
    monkeypatch.setattr(schema, "STEPS", STEPS)
    with pytest.raises(ConfigError, match=rf"has schema {len(STEPS) + 1}, .* knows {len(STEPS)} at"):
        using(settings(), lambda store: store.count(DECISIONS))


def test_many_may_start_at_once(settings: Make) -> None:
    async def run() -> list[int]:
        stores = [Store(settings()) for _ in range(6)]
        try:
            return await asyncio.gather(*(store.open() for store in stores))
        finally:
            await asyncio.gather(*(store.close() for store in stores))

    assert asyncio.run(run()) == [len(STEPS)] * 6


def test_tables_are_what_the_steps_make(settings: Make) -> None:
    """The steps are written by hand, and the tables too; they must not drift apart."""

    async def look(store: Store) -> Any:
        for table in METADATA.sorted_tables:
            await store.rows(select(table))
        await store.write([entry()])
        return True

    assert using(settings(), look)


def test_sqlite_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    using(Audit(url=f"sqlite+aiosqlite:///{path}"), lambda store: store.write([entry()]))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///x.db", "must begin with"),
        ("mysql://x", "must begin with"),
        ("postgresql+asyncpg://u:secret@h/x", "password_env"),
    ],
)
def test_a_bad_address(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Audit(url=url)


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    store = Store(Audit(url="postgresql+asyncpg://u@localhost/x", password_env="DB_PASSWORD"))
    assert store._engine.url.password == "s3cret"
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(ConfigError, match="DB_PASSWORD"):
        Store(Audit(url="postgresql+asyncpg://u@localhost/x", password_env="DB_PASSWORD"))
    with suppress(RuntimeError):
        asyncio.run(store.close())
