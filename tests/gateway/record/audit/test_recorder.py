"""Who waits for the store: a refusal does, the rest does not; and what happens while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from gateway.config import Audit
from gateway.errors import AuditFailed, ConfigError
from gateway.record.audit import recorder as module
from gateway.record.audit.recorder import Recorder
from gateway.record.audit.schema import DECISIONS
from gateway.record.audit.store import Store
from gateway.record.metrics import Metrics
from tests.gateway.guard.parts import sample
from tests.gateway.record.audit.conftest import Postgres, entry

Make = Callable[..., Audit]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is tried again soon."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)


class Faulty(Store):
    """A store that can be told to fail, or to take long."""

    broken = False
    slow_seconds = 0.0
    writes = 0

    async def open(self) -> int:
        self._fail()
        return await super().open()

    async def write(self, entries: Any) -> None:
        self.writes += 1
        await asyncio.sleep(self.slow_seconds)
        self._fail()
        await super().write(entries)

    def _fail(self) -> None:
        if self.broken:
            raise OperationalError("INSERT", {"text": "SECRET"}, Exception("database or disk is full"))


@contextlib.asynccontextmanager
async def running(settings: Audit, **fields: Any) -> AsyncIterator[tuple[Recorder, Any, Metrics]]:
    metrics = Metrics()
    metrics.declare("p", "v", "0", ())
    store = Faulty(settings)
    for name, value in fields.items():
        setattr(store, name, value)
    recorder = Recorder(store, settings, metrics)
    await recorder.start()
    try:
        yield recorder, store, metrics
    finally:
        await recorder.close()


async def ids(store: Store) -> list[str]:
    return [row["request_id"] for row in await store.rows(select(DECISIONS).order_by(DECISIONS.c.id))]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  conditions are of many kinds
            await asyncio.sleep(0.01)


async def test_a_refusal_is_there_when_keep_returns(settings: Make) -> None:
    async with running(settings(batch_seconds=30)) as (recorder, store, metrics):
        await recorder.keep(entry(1))
        assert await ids(store) == ["req_1"]
        assert sample(metrics, "audit_records_total", result="written") == 1
        assert sample(metrics, "audit_up") == 1


async def test_the_rest_goes_in_batches(settings: Make) -> None:
    async with running(settings(batch_seconds=0.2)) as (recorder, store, metrics):
        for number in range(500):
            recorder.add(entry(number, decision="allow"))
        assert await ids(store) == []
        await until(lambda: sample(metrics, "audit_records_total", result="written") == 500)
        assert store.writes == 1
        assert len(await ids(store)) == 500


async def test_refusals_share_a_write(settings: Make) -> None:
    async with running(settings(), slow_seconds=0.05) as (recorder, store, _):
        await asyncio.gather(*(recorder.keep(entry(number)) for number in range(200)))
        assert store.writes <= 3
        assert len(await ids(store)) == 200


async def test_what_waits_is_written_at_the_end(settings: Make) -> None:
    async with running(settings(batch_seconds=30)) as (recorder, _, metrics):
        recorder.add(entry(1))
    assert sample(metrics, "audit_records_total", result="written") == 1


async def test_flush(settings: Make) -> None:
    async with running(settings(batch_seconds=30)) as (recorder, store, _):
        recorder.add(entry(1))
        await recorder.flush()
        assert await ids(store) == ["req_1"]


async def test_away_and_back_allowing(settings: Make) -> None:
    """Replies go out without waiting; what fits in the queue is written late, the rest is lost and counted."""
    async with running(settings(queue=5, timeout_seconds=2)) as (recorder, store, metrics):
        store.broken = True
        await recorder.keep(entry(0))
        assert not recorder.up
        recorder.admit()
        for number in range(1, 8):
            async with asyncio.timeout(0.5):
                await recorder.keep(entry(number))
        assert sample(metrics, "audit_dropped_total", reason="queue_full") == 3
        store.broken = False
        await until(lambda: sample(metrics, "audit_records_total", result="late") == 5)
        assert await ids(store) == [f"req_{number}" for number in range(5)]
        assert sample(metrics, "audit_records_total", result="dropped") == 3
        assert sample(metrics, "audit_failures_total") >= 1
        await recorder.keep(entry(9))
        assert sample(metrics, "audit_records_total", result="written") == 1


async def test_away_and_back_refusing(settings: Make) -> None:
    async with running(settings(on_failure="refuse")) as (recorder, store, metrics):
        recorder.admit()
        store.broken = True
        with pytest.raises(AuditFailed):
            await recorder.keep(entry(1))
        with pytest.raises(AuditFailed):
            recorder.admit()
        assert sample(metrics, "audit_up") == 0
        store.broken = False
        await until(lambda: recorder.up)
        recorder.admit()
        await recorder.keep(entry(2))
        assert await ids(store) == ["req_1", "req_2"]


async def test_a_slow_database_counts_as_failed(settings: Make) -> None:
    async with running(settings(timeout_seconds=0.2), slow_seconds=5.0) as (recorder, store, _):
        async with asyncio.timeout(2):
            await recorder.keep(entry(1))
        store.slow_seconds = 0.0
        await until(lambda: not recorder.up)
        await until(lambda: recorder.up)
        await recorder.flush()
        assert await ids(store) == ["req_1"]


async def test_lost_at_the_end_is_counted(settings: Make) -> None:
    async with running(settings()) as (recorder, store, metrics):
        store.broken = True
        recorder.add(entry(1))
        await until(lambda: not recorder.up)
    assert sample(metrics, "audit_dropped_total", reason="shutdown") == 1


async def test_a_row_that_is_never_taken_stops_no_other(settings: Make) -> None:
    async with running(settings()) as (recorder, store, metrics):
        bad = entry(2, request_id=None)
        await asyncio.gather(*(recorder.keep(one) for one in (entry(1), bad, entry(3))))
        assert await ids(store) == ["req_1", "req_3"]
        assert sample(metrics, "audit_dropped_total", reason="rejected") == 1
        assert recorder.up


async def test_text_that_a_database_cannot_hold(settings: Make) -> None:
    async with running(settings(text="full")) as (recorder, store, _):
        await recorder.keep(entry(1, text="nul \0 and half a pair \ud83d"))
        [row] = await store.rows(select(DECISIONS))
        assert row["text"] == "nul \ufffd and half a pair ?"


async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/audit.db"
    with pytest.raises(ConfigError, match=r"audit.url: the database cannot be opened .*unable to open"):
        async with running(Audit(url=url, on_failure="refuse")):
            pass
    async with running(Audit(url=url)) as (recorder, _, metrics):
        await recorder.keep(entry(1))
        assert sample(metrics, "audit_up") == 0
        (tmp_path / "no/such/folder").mkdir(parents=True)
        await until(lambda: recorder.up)


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"this is no database, and it is longer than a header" * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        async with running(Audit(url=f"sqlite+aiosqlite:///{path}", on_failure="refuse")):
            pass


async def test_postgres_stops_and_comes_back(postgres: Postgres) -> None:
    settings = Audit(url=postgres.url, batch_seconds=0.05, timeout_seconds=2)
    async with running(settings) as (recorder, store, metrics):
        await recorder.keep(entry(1))
        await asyncio.to_thread(postgres.stop)
        try:
            await recorder.keep(entry(2))
            assert not recorder.up
            recorder.add(entry(3, decision="allow"))
        finally:
            await asyncio.to_thread(postgres.start)
        await until(lambda: recorder.up and sample(metrics, "audit_records_total", result="written") == 2, 20)
        assert await ids(store) == ["req_1", "req_2", "req_3"]
        assert sample(metrics, "audit_records_total", result="late") == 1


async def test_a_full_disk(tmp_path: Path) -> None:
    """SQLite's own answer to a full disk: a page more than it may have."""
    settings = Audit(url=f"sqlite+aiosqlite:///{tmp_path}/audit.db", batch_seconds=0.05, queue=50)
    async with running(settings) as (recorder, store, metrics):
        await recorder.keep(entry(0))
        async with store._engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(1, 400):
            await recorder.keep(entry(number, text="x" * 4_000))
        assert not recorder.up
        assert sample(metrics, "audit_dropped_total", reason="queue_full") > 0
        async with store._engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        await until(lambda: recorder.up)
        await recorder.flush()
        found = await ids(store)
    kept = sum(sample(metrics, "audit_records_total", result=result) for result in ("written", "late"))
    assert len(found) == kept


async def test_the_log_has_no_text(settings: Make, caplog: pytest.LogCaptureFixture) -> None:
    from structlog.testing import capture_logs

    with capture_logs() as lines:
        async with running(settings()) as (recorder, store, _):
            store.broken = True
            await recorder.keep(entry(1, text="SECRET"))
    assert any("disk is full" in str(line) for line in lines)
    assert "SECRET" not in str(lines)
