"""`hhh probes run` against a running gateway and in process, and the schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import main
from gateway.keys import command
from tests.fakes import Recorder, eventually, samples

Gateway = Callable[..., httpx.Client]
REFUSED = '{"id": "b1", "text": "MARK-HARM, a word in a harmless sentence", "expected": "answered"}\n'


def hhh(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["probes", "run", *arguments])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A suite of four, one of which is wrongly refused."""
    folder = tmp_path / "own"
    folder.mkdir()
    calm = "".join(json.dumps({"id": f"c{n}", "text": f"calm {n}", "expected": "answered"}) + "\n" for n in range(3))
    (folder / "house.jsonl").write_text(REFUSED + calm)
    return folder


def test_by_a_running_gateway(gateway: Gateway, own: Path, tmp_path: Path) -> None:
    client = gateway(probes={"every_seconds": 0, "folder": own})
    url = str(client.base_url)
    report = tmp_path / "run.json"
    done = hhh("--base-url", f"{url}/v1", "--report", str(report))
    assert done.exit_code == 0, done.output
    assert "MARK-HARM, a word in a harmless sentence" in done.stdout
    assert "harmless probes refused: 25.0%" in done.stdout
    assert json.loads(report.read_text())["matrix"]["house"]["refused"] == 1
    assert hhh("--base-url", url, "--budget", "0.3").exit_code == 0
    over = hhh("--base-url", url, "--budget", "0.2")
    assert (over.exit_code, over.stderr) == (1, "over the budget of 20.0%\n")
    counted = samples(client.get("/metrics").text)
    assert counted['hhh_probe_results_total{expected="answered",observed="refused",suite="house"}'] == 3


def test_with_a_key(gateway: Gateway, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own.parent / "keys.json"
    for role in ("client", "admin"):
        monkeypatch.setenv(role, command.create(path, role, role=role)[1])
    url = str(gateway(keys_file=path, probes={"every_seconds": 0, "folder": own}).base_url)
    for options, status in (((), "401"), (("--key-env", "client"), "403")):
        refused = hhh("--base-url", url, *options)
        assert refused.exit_code == 2
        assert status in refused.stderr
    assert hhh("--base-url", url, "--key-env", "admin").exit_code == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "file:///etc/passwd"])
def test_nobody_there(url: str) -> None:
    done = hhh("--base-url", url)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert done.stderr


def test_on_schedule(gateway: Gateway, own: Path, upstream: Recorder) -> None:
    """Right after the start, and again; the model is never asked, and no metric of traffic moves."""
    client = gateway(probes={"every_seconds": 0.2, "folder": own, "pause_seconds": 0})
    name = 'hhh_probe_results_total{expected="answered",observed="answered",suite="house"}'
    eventually(lambda: samples(client.get("/metrics").text)[name] >= 6)
    assert upstream.bodies == []
    counted = samples(client.get("/metrics").text)
    assert sum(value for key, value in counted.items() if key.startswith("hhh_refusals_total")) == 0


def test_here(no_settings: None) -> None:
    """With the shipped classifier and policy: what the README and the docs say of it."""
    done = hhh("--budget", "0.05")
    assert done.exit_code == 0, done.output
    assert "frightening" in done.stdout
