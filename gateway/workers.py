"""`hhh serve --workers N`: processes that serve on one port, started again when they die, their metrics as one.

The supervisor holds the socket and imports nothing of the gateway's heavy parts. What is not covered: a worker that
hangs without dying; that is what a liveness probe is for.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from gateway.config import Config, environment
from gateway.record import logs

_PREFIX = "hhh-metrics-"
_GRACE_SECONDS = 35.0  # uvicorn's 30 for requests in progress, and a little
_LONGEST_REST_SECONDS = 30.0
# A worker that lived so long did not die of how it was started.
_SETTLED_SECONDS = 60.0


@dataclass(slots=True)
class _Worker:
    """`ready`: a pipe on which it says that it serves; closed once it has. `due`: when a dead one is started again."""

    number: int
    process: subprocess.Popen[str]
    ready: int | None
    began: float
    deaths: int = 0
    due: float | None = None


class Fleet:
    """The workers of one gateway."""

    def __init__(self, config: Config, listener: socket.socket, folder: Path) -> None:
        self._config = config
        self._listener = listener
        self._folder = folder
        self._workers: list[_Worker] = []
        self._signals: list[int] = []
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wake, False)

    def run(self) -> int:
        """Serve until told to stop; the exit code, negative for the signal that it was told with."""
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(sig, lambda sig, _: self._signals.append(sig))
        signal.set_wakeup_fd(self._waker)
        # The first one alone: what is wrong with the configuration is said once, and a new database is made once.
        first = self._start(0)
        while first.ready is not None:
            self._wait(None)
            if first.ready is not None and first.process.poll() is not None:
                return max(first.process.returncode, 1)
            if told := self._told():
                return self._stop(told)
        for number in range(1, self._config.workers):
            self._start(number)
        while True:
            due = [worker.due - time.monotonic() for worker in self._workers if worker.due is not None]
            self._wait(max(0.0, min(due)) if due else None)
            if told := self._told():
                return self._stop(told)
            self._tend()

    def _start(self, number: int, before: _Worker | None = None) -> _Worker:
        ready, says = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.worker"],
            stdin=subprocess.PIPE,
            text=True,
            env=environment(PROMETHEUS_MULTIPROC_DIR=str(self._folder)),
            pass_fds=(self._listener.fileno(), says),
            start_new_session=True,  # what a terminal sends comes through the supervisor
        )
        os.close(says)
        part = {
            "number": number,
            "listener": self._listener.fileno(),
            "ready": says,
            "metrics": str(self._folder),
            "replaces": before is not None,
        }
        with suppress(BrokenPipeError):  # it is dead already, which `_tend` sees
            _stdin(process).write(json.dumps({"config": self._config.model_dump(mode="json"), "part": part}) + "\n")
            _stdin(process).flush()
        worker = _Worker(number, process, ready, time.monotonic(), before.deaths if before else 0)
        self._workers = [other for other in self._workers if other.number != number] + [worker]
        return worker

    def _tend(self) -> None:
        """Note who has died, and start again whose time has come."""
        for worker in list(self._workers):
            if worker.due is None and worker.process.poll() is not None:
                self._buried(worker)
            if worker.due is not None and time.monotonic() >= worker.due:
                self._start(worker.number, worker)

    def _buried(self, worker: _Worker) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        lived = time.monotonic() - worker.began
        worker.deaths = 1 if lived > _SETTLED_SECONDS else worker.deaths + 1
        rest = min(_LONGEST_REST_SECONDS, 0.25 * 2 ** (worker.deaths - 1)) if worker.deaths > 1 else 0.0
        worker.due = time.monotonic() + rest
        self._ready(worker)
        with suppress(OSError, ValueError):
            _stdin(worker.process).close()
        mark_process_dead(worker.process.pid, str(self._folder))  # type: ignore[no-untyped-call]
        structlog.get_logger().error(
            "worker died",
            worker=worker.number,
            pid=worker.process.pid,
            code=worker.process.returncode,
            lived_seconds=round(lived, 1),
            starts_in_seconds=rest,
        )

    def _stop(self, sig: int) -> int:
        """Let all workers drain and end; those that do not in time are killed."""
        self._send(sig)
        deadline = time.monotonic() + _GRACE_SECONDS + (self._config.drain_seconds if sig == signal.SIGTERM else 0)
        while any(worker.process.poll() is None for worker in self._workers) and time.monotonic() < deadline:
            self._wait(deadline - time.monotonic())
            if again := self._told():
                self._send(signal.SIGKILL if again == signal.SIGINT and sig == signal.SIGINT else again)
        self._send(signal.SIGKILL)
        for worker in self._workers:
            worker.process.wait()
        return -sig

    def _send(self, sig: int) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(sig)

    def _told(self) -> int | None:
        """The signal to stop, if one came. A hangup is for the workers, which load their policies anew."""
        told, self._signals = self._signals, []
        if signal.SIGHUP in told:
            self._send(signal.SIGHUP)
        return next((sig for sig in told if sig in (signal.SIGTERM, signal.SIGINT)), None)

    def _wait(self, seconds: float | None) -> None:
        """Until a signal comes, a child's end too, or a worker says that it serves."""
        starting = {worker.ready: worker for worker in self._workers if worker.ready is not None}
        found, _, _ = select.select([self._wake, *starting], [], [], seconds)
        for pipe in found:
            if pipe == self._wake:
                with suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            elif os.read(pipe, 1):
                self._ready(starting[pipe])
            elif starting[pipe].process.wait() is not None:  # closed without a word: it is dying
                return

    def _ready(self, worker: _Worker) -> None:
        if worker.ready is not None:
            os.close(worker.ready)
            worker.ready = None


def supervise(config: Config) -> int:
    """Serve with `config.workers` processes until told to stop; the exit code. 2: the configuration is wrong."""
    logs.configure(config.log_level)
    try:
        listener = _bound(config.host, config.port)
    except OSError as error:
        print(f"{config.host}:{config.port}: {error.strerror}".lower(), file=sys.stderr)
        return 3
    with listener, _metrics_folder() as folder:
        code = Fleet(config, listener, folder).run()
    if code < 0:  # die of what we were told with, as a single process does
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _bound(host: str, port: int) -> socket.socket:
    """The socket, bound but not yet open: the first worker that serves opens it.

    The protocol is named, or asyncio would not switch off Nagle's algorithm, and a reply would take 40 ms.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    found = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    """A new folder for the workers' metrics, gone at the end; those of supervisors that were killed go now.

    A lock tells them apart, for in a container every supervisor has the same process id.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), (old / "lock").open("r+") as file:
            _lock(file)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with (folder / "lock").open("w") as file:
            _lock(file)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(file: IO[str]) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _stdin(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin
