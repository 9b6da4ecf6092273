"""`hhh audit report` and `hhh audit export`, over the store that the configuration names."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.record.audit.store import Store
from gateway.report.export import exported
from gateway.report.figures import figures
from gateway.report.page import html
from gateway.report.records import opinions, read

T = TypeVar("T")


def write_report(config: Config, folder: Path, days: float) -> dict[str, Any]:
    """`report.html` and `report.json` of the last days. Raises `ConfigError` where there is no store to read."""
    until = time.time()
    report = figures(with_store(config, lambda store: read(store, until - days * 86_400, until)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(html(report), encoding="utf-8")
    return report


def write_export(config: Config, output: Path, days: float) -> tuple[int, int]:
    """Rows for training; how many, and how many reports had no text. Raises `ConfigError`."""
    until = time.time()
    found = with_store(config, lambda store: opinions(store, until - days * 86_400, until))
    rows = list(exported(found))
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows), sum(not row["text"] and row["verdict"] != "correct" for row in found)


def with_store(config: Config, work: Callable[[Store], Awaitable[T]]) -> T:
    """What `work` returns, over the store that the configuration names. Raises `ConfigError`."""
    if config.audit.url is None:
        raise ConfigError("audit.url: is null, so there are no records")
    _, _, path = config.audit.url.partition("sqlite+aiosqlite:///")
    if path and not Path(path).is_file():
        raise ConfigError(f"audit.url: {path}: no such file; has a gateway run with this configuration?")

    async def run() -> T:
        store = Store(config.audit)
        try:
            await store.open()
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise ConfigError(f"audit.url: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}") from None
