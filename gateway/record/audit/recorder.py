"""Who waits for the audit store: a refusal until its record is on disk, all else for nothing.

One task writes. What came while it wrote goes with the next write, so that many refusals share one fsync. While the
database fails, entries wait in a queue of bounded length and are written when it comes back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from gateway.config import Audit as Settings
from gateway.errors import AuditFailed, ConfigError
from gateway.record.audit.entry import Entry
from gateway.record.audit.redaction import Redact
from gateway.record.audit.store import Store
from gateway.record.metrics import Metrics

MOST_AT_ONCE = 1_000
RETRY_SECONDS = 1.0
_PURGE_SECONDS = 3_600.0


@dataclass(slots=True, eq=False)
class _Item:
    entry: Entry
    waiter: asyncio.Future[bool] | None = None
    late: bool = False


class Recorder:
    """An `Audit` over a store. `redact` is called off the event loop, for `text: redacted`."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, redact: Redact | None = None) -> None:
        self.store = store
        self.up = False
        self._settings = settings
        self._metrics = metrics
        self._redact = redact
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing = False
        self._closing = False
        self._purged: float | None = None
        self._told = False

    def shown(self, text: str) -> str | None:
        return text[: self._settings.text_characters] if self._settings.text != "none" else None

    @property
    def must(self) -> bool:
        """Whether no reply may go out without a record."""
        return self._settings.on_failure == "refuse"

    async def start(self) -> None:
        """Open the store and begin to write. Raises `ConfigError` where it cannot be opened and must be."""
        try:
            await self._open()
        except ConfigError:
            await self.store.close()
            raise
        except Exception as error:  # noqa: BLE001  the seam of the database
            if self.must:
                await self.store.close()
                raise ConfigError(f"audit.url: the database cannot be opened ({_short(error)})") from None
            self._failed(error)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what waits, once; what the database does not take then is lost, and counted."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop(list(self._queue), "shutdown")
        self._queue.clear()
        await self.store.close()

    def admit(self) -> None:
        if self.must and (not self.up or len(self._queue) >= self._settings.queue):
            raise AuditFailed

    def add(self, entry: Entry) -> None:
        self._push(_Item(entry))
        if len(self._queue) >= MOST_AT_ONCE:
            self._wake.set()

    async def keep(self, entry: Entry) -> None:
        item = _Item(entry, asyncio.get_running_loop().create_future())
        if not self._push(item):
            if self.must:
                raise AuditFailed
            return
        self._wake.set()
        began = time.perf_counter()
        kept = self.up and await self._waited(item)
        self._metrics.observe("audit_wait_seconds", time.perf_counter() - began)
        if kept:
            return
        item.late = True
        if self.must:
            raise AuditFailed

    async def flush(self) -> None:
        """Returns when all that was added has been written, or the database has failed."""
        if (self._queue or self._writing) and self.up:
            self._idle.clear()
            self._wake.set()
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass

    async def _waited(self, item: _Item) -> bool:
        assert item.waiter is not None
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await asyncio.shield(item.waiter)
        except TimeoutError:
            return False

    def _push(self, item: _Item) -> bool:
        if len(self._queue) >= self._settings.queue:
            self._drop([item], "queue_full")
            return False
        self._queue.append(item)
        return True

    async def _open(self) -> None:
        async with asyncio.timeout(self._settings.timeout_seconds):
            await self.store.open()
        self._set_up(True)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.batch_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._drain()
            self._idle.set()
            if self._closing:
                return
            if not self.up:
                await self._reopened()
            elif self._purged is None or time.monotonic() - self._purged > _PURGE_SECONDS:
                await self._purge()

    async def _drain(self) -> None:
        """Write all that waits, a batch at a time, until it is done or the database fails."""
        while self._queue and self.up:
            batch = [self._queue.popleft() for _ in range(min(MOST_AT_ONCE, len(self._queue)))]
            self._writing = True
            try:
                await self._write(batch)
            except Exception as error:  # noqa: BLE001  the seam of the database
                self._queue.extendleft(reversed(batch))
                self._failed(error)
                self._release()
            finally:
                self._writing = False

    async def _write(self, batch: list[_Item]) -> None:
        entries = [item.entry for item in batch]
        if self._redact is not None:
            entries = await asyncio.to_thread(_redacted, entries, self._redact)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self.store.write(entries)
        except StatementError as error:
            if not _rejects(error):
                raise
            await self._write_singly(batch, entries)
        else:
            self._written(batch)

    async def _write_singly(self, batch: Sequence[_Item], entries: Sequence[Entry]) -> None:
        """A row that the database will never take must not stop the others."""
        for item, entry in zip(batch, entries, strict=True):
            try:
                await self.store.write([entry])
            except StatementError as error:
                if not _rejects(error):
                    raise
                structlog.get_logger().error("audit record rejected", request_id=entry.request_id, error=_short(error))
                self._drop([item], "rejected")
            else:
                self._written([item])

    async def _reopened(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            await self._open()
        except Exception as error:  # noqa: BLE001  the seam of the database
            self._failed(error)
        else:
            self._wake.set()

    async def _purge(self) -> None:
        self._purged = time.monotonic()
        try:
            gone = await self.store.purge()
        except Exception as error:  # noqa: BLE001  the seam of the database
            self._failed(error)
            return
        if gone:
            structlog.get_logger().info("audit records deleted", records=gone)

    def _written(self, batch: Sequence[_Item]) -> None:
        for item in batch:
            self._metrics.count("audit_records_total", result="late" if item.late else "written")
            if item.waiter is not None and not item.waiter.done():
                item.waiter.set_result(True)

    def _drop(self, items: Sequence[_Item], reason: str) -> None:
        for item in items:
            self._metrics.count("audit_records_total", result="dropped")
            self._metrics.count("audit_dropped_total", reason=reason)
            if item.waiter is not None and not item.waiter.done():
                item.waiter.set_result(False)

    def _release(self) -> None:
        """Whoever waits for the database need not wait until it is back."""
        for item in self._queue:
            if item.waiter is not None and not item.waiter.done():
                item.waiter.set_result(False)

    def _failed(self, error: Exception) -> None:
        if self.up or not self._told:
            self._told = True
            structlog.get_logger().error("audit store failed", error=_short(error), waiting=len(self._queue))
        self._metrics.count("audit_failures_total")
        self._set_up(False)

    def _set_up(self, up: bool) -> None:
        if up and not self.up:
            structlog.get_logger().info("audit store open")
        self.up = up
        self._metrics.gauge("audit_up").set(up)


def _rejects(error: StatementError) -> bool:
    """Whether the row is at fault, and not the database."""
    return isinstance(error, (DataError, IntegrityError)) or type(error) is StatementError


def _redacted(entries: Sequence[Entry], redact: Redact) -> list[Entry]:
    """A text that cannot be redacted is not kept."""
    return [entry if entry.text is None else replace(entry, text=redact(entry.text)) for entry in entries]


def _short(error: Exception) -> str:
    """The error without the statement and its parameters, which hold what was to be kept."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
