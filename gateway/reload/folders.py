"""What lies in the policies' folders, and when it changes.

The system says so (inotify and its like, by `watchfiles`), and the folders are looked at every so often besides: not
every file system says anything, and a watch ends with the folder that it is on. What counts is the contents, symlinks
followed, so that the swap of a Kubernetes ConfigMap's `..data` is one change, and a `touch` is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog
from watchfiles import awatch

from gateway.errors import ConfigError
from gateway.guard.policy import version

_RETRY_SECONDS = 5.0


def fingerprint(folder: Path) -> str:
    """The version of the policy that lies there; where it cannot be read, why."""
    try:
        return version(folder)
    except OSError as error:
        return f"unreadable: {error.strerror} {error.filename}"


def refuse_halves(folder: Path) -> None:
    """An empty file is one that an editor is about to write. Raises `ConfigError`."""
    for path in sorted(folder.glob("*")):
        if path.suffix in (".yml", ".co") and path.is_file() and not path.stat().st_size:
            raise ConfigError(f"{path}: is empty; half written?")


async def listen(folders: Iterable[Path], changed: asyncio.Event) -> None:
    """Set `changed` whenever the system says that something in the folders has. For ever."""
    told = False
    while True:
        there = {folder for folder in folders if folder.is_dir()}
        try:
            if there:
                async for _ in awatch(*there, watch_filter=None, debounce=200, step=25, rust_timeout=60_000):
                    changed.set()
        except (OSError, RuntimeError) as error:  # a folder that went away, or no watches left
            if not told:
                structlog.get_logger().warning("folders cannot be watched, only looked at", error=str(error))
            told = True
        await asyncio.sleep(_RETRY_SECONDS)
