"""`hhh serve` as a user starts it: a process of its own, driven by the openai client."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HHH = Path(sys.executable).with_name("hhh")


class Served:
    """A running `hhh serve`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HHH_")}
        clean |= {"HHH_AUDIT__URL": f"sqlite+aiosqlite:///{folder}/audit.db", "HHH_PROBES__EVERY_SECONDS": "0"}
        began = time.monotonic()
        with self.log.open("w") as log:
            command = [HHH, "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=ROOT, env={**clean, **environment}, stderr=log)
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)
        while self.status("/readyz") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < 120, "not ready in time"
            time.sleep(0.05)
        self.ready_seconds = time.monotonic() - began

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> dict[str, float]:
        """Samples by name with labels, as exposed."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as reply:
            text = reply.read().decode()
        return {name: float(value) for name, value in re.findall(r"^(hhh_\S+) (\S+)$", text, re.MULTILINE)}

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`hhh serve` with no configuration at all: the embedded default."""
    served = Served(tmp_path_factory.mktemp("embedded"))
    yield served
    served.stop()
