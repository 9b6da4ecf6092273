"""Audit stores to test with: SQLite always, PostgreSQL from the system's packages where they are installed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Audit
from gateway.record.audit.entry import Entry, fingerprint

MISSING = "PostgreSQL's server is not installed (Debian: postgresql; `make setup` as root installs it)"


def entry(number: int = 0, **fields: Any) -> Entry:
    """A refusal, unless told otherwise."""
    known: dict[str, Any] = {
        "request_id": f"req_{number}", "key": "", "endpoint": "chat_completions", "policy": "finance",
        "policy_version": "sha256:1", "weights": "abc", "decision": "block", "label": "harmful",
        "category": "harmful.fraud", "score": 0.9, "scores": {"harmful": 0.9, "benign": 0.1}, "route": "refuse",
        "tier": "encoder", "stage": "triage", "rail": "triage", "source": "triage", "error": "", "stream": False,
        "total_ms": 2.0, "guard_ms": 1.5, "upstream_ms": 0.0, "sha256": fingerprint(f"text {number}"),
    }  # fmt: skip
    return Entry(**{**known, **fields})


def binaries() -> Path | None:
    """The folder with PostgreSQL's server, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class Postgres:
    """A server of its own in a folder, on a free port, its files let go without fsync. Stop and start as you like."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self._bin = bin
        self._data = folder / "data"
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self._as: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(folder, "postgres", "postgres")
        self._run(bin / "initdb", "-D", self._data, "-A", "trust", "-U", "hhh", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://hhh@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        log = self._folder / "log"
        self._run(self._bin / "pg_ctl", "-D", self._data, "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._run(self._bin / "pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [*self._as, *map(str, command)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (getpass.getuser(), done.stderr)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    bin = binaries()
    if bin is None:
        pytest.skip(MISSING)
    # Not in pytest's folder, which is for its user alone, while the server has one of its own.
    with tempfile.TemporaryDirectory(prefix="hhh-postgres-", ignore_cleanup_errors=True) as folder:
        server = Postgres(bin, Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Audit]:
    """Makes settings of an empty database."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/audit.db"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        name = f"t{os.urandom(6).hex()}"
        url = server.url.replace("/postgres", f"/{name}")
        _create(server, name)

    def make(**fields: Any) -> Audit:
        return Audit(**{"url": url, "batch_seconds": 0.05, **fields})

    return make


def _create(server: Postgres, name: str) -> None:
    import asyncio

    import asyncpg

    async def create() -> None:
        connection = await asyncpg.connect(host="127.0.0.1", port=server.port, user="hhh", database="postgres")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
