"""python -m gateway.worker: one of several processes that serve. `gateway.workers` starts it, and tells it what."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from gateway.config import Config
from gateway.server import Part, run


def main() -> None:
    """Serve until told to stop, or until whoever started us is gone."""
    told = json.loads(sys.stdin.readline())
    config, part = Config(**told["config"]), told["part"]
    if part["number"]:  # one of them runs the probes on their schedule
        config = config.model_copy(update={"probes": config.probes.model_copy(update={"every_seconds": 0.0})})
    threading.Thread(target=_follow, daemon=True).start()
    run(
        config,
        Part(
            socket.socket(fileno=part["listener"]),
            lambda: _say(part["ready"]),
            Path(part["metrics"]),
            part["replaces"],
        ),
    )


def _follow() -> None:
    """The other end of stdin closes when the supervisor dies, however it does."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _say(pipe: int) -> None:
    os.write(pipe, b"1")
    os.close(pipe)


if __name__ == "__main__":
    main()
