"""`hhh serve` in front of a remote model: light, and without torch."""

from __future__ import annotations

import json
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import ROOT, Served
from tests.fakes import Recorder, eventually


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
    assert served.stop() in (0, 130)  # 130 is how a shell reports SIGINT; seen as 0 once, on a machine under load
    assert "Traceback" not in served.log.read_text()


def test_sighup_loads_the_policies_anew(tmp_path: Path, upstream: Recorder) -> None:
    shutil.copytree(ROOT / "rails" / "finance", tmp_path / "rails" / "finance")
    rails, path = str(tmp_path / "rails"), tmp_path / "rails" / "finance" / "policy.yml"
    served = Served(tmp_path, HHH_UPSTREAM__BASE_URL=upstream.url, HHH_RAILS_DIR=rails, HHH_RELOAD__WATCH="off")

    def told() -> Any:
        with urllib.request.urlopen(f"{served.url}/readyz?verbose", timeout=5) as reply:
            return json.load(reply)["policies"]["finance"]

    try:
        before = told()["version"]
        path.write_text(path.read_text().replace("mode: enforce", "mode: shadow", 1))
        served.process.send_signal(signal.SIGHUP)
        last = eventually(lambda: told().get("last_reload"))
        assert last["result"] == "ok", last  # the shipped examples hold in shadow mode too
        assert told()["version"] == last["version"] != before
        assert "policy reloaded" in served.log.read_text()
    finally:
        served.stop()
