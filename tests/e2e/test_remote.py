"""`hhh serve` in front of a remote model: light, and without torch."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.e2e.conftest import Served
from tests.fakes import Recorder


def test_remote_is_light_and_imports_no_torch(tmp_path: Path, upstream: Recorder) -> None:
    served = Served(tmp_path, HHH_UPSTREAM__BASE_URL=upstream.url)
    try:
        reply = served.client.chat.completions.create(
            model="up-model", messages=[{"role": "user", "content": "What is a bond?"}]
        )
        assert reply.choices[0].message.content == "An index fund follows an index."
        resident = psutil.Process(served.process.pid).memory_info().rss
        assert resident < 450 * 1024 * 1024, resident
        mapped = {Path(region.path).name for region in psutil.Process(served.process.pid).memory_maps()}
        assert not [name for name in mapped if name.startswith(("libtorch", "_C.cpython"))]
    finally:
        served.stop()


def test_stops_cleanly(tmp_path: Path, upstream: Recorder) -> None:
    served = Served(tmp_path, HHH_UPSTREAM__BASE_URL=upstream.url)
    assert served.stop() == 130  # as a shell reports SIGINT
    assert "Traceback" not in served.log.read_text()
