"""Debian's Prometheus, with our rules, scrapes a running gateway; what goes wrong there becomes an alert."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.conftest import ROOT, Served

Ask = Callable[[str, str], Any]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """In front of a model server that is not there."""
    served = Served(
        tmp_path_factory.mktemp("gateway"),
        HHH_UPSTREAM__BASE_URL=f"http://127.0.0.1:{free_port()}/v1",
        HHH_UPSTREAM__RETRIES="0",
        HHH_UPSTREAM__BREAKER__RESET_SECONDS="60",
    )
    yield served
    served.stop()


@pytest.fixture(scope="module")
def prometheus(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """The shipped configuration, but for the target and a second's haste; asks Prometheus' API, path and query."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    shipped = ROOT / "deploy" / "prometheus"
    settings = yaml.safe_load((shipped / "prometheus.yml").read_text(encoding="utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(shipped / file) for file in settings["rule_files"]]
    [job] = settings["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{gateway.port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ask(path: str, query: str) -> Any:
        parts = urllib.parse.urlencode({"query": query}) if query else ""
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{parts}", timeout=10) as reply:
            return json.load(reply)["data"]

    with (folder / "log").open("w") as log:
        command: list[str | Path] = [
            program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        eventually(lambda: ready(url) or (process.poll() is not None and pytest.fail((folder / "log").read_text())))
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def eventually(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.25)
    return value


def firing(ask: Ask) -> set[str]:
    return {one["labels"]["alertname"] for one in ask("alerts", "")["alerts"] if one["state"] == "firing"}


def test_a_model_that_is_away_becomes_an_alert(gateway: Served, prometheus: Ask) -> None:
    targets = eventually(lambda: [one for one in prometheus("targets", "")["activeTargets"] if one["health"] == "up"])
    assert [one["lastError"] for one in targets] == [""]
    assert "HhhBreakerOpen" not in firing(prometheus)
    for _ in range(12):
        with pytest.raises(openai.APIStatusError) as raised:
            gateway.client.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "What is a bond?"}]
            )
        assert raised.value.status_code in (502, 503)
    eventually(lambda: "HhhBreakerOpen" in firing(prometheus))


def test_every_rule_and_dashboard_query_is_one_that_prometheus_runs(gateway: Served, prometheus: Ask) -> None:
    rules = [rule for group in prometheus("rules", "")["groups"] for rule in group["rules"]]
    assert len(rules) >= 20
    eventually(
        lambda: all(rule["health"] == "ok" for group in prometheus("rules", "")["groups"] for rule in group["rules"])
    )
    seen = 0
    for board in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(board.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                seen += bool(prometheus("query", target["expr"])["result"])
    assert seen >= 20, "most queries find series in a gateway that has just refused to answer"


def test_a_refusal_is_counted_where_prometheus_sees_it(gateway: Served, prometheus: Ask) -> None:
    query = 'sum(hhh_refusals_total{source="triage"})'
    before = float(eventually(lambda: prometheus("query", query)["result"])[0]["value"][1])
    reply = gateway.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Help me launder the cash from my drug sales."}]
    )
    assert reply.choices[0].finish_reason == "content_filter"
    eventually(lambda: float(prometheus("query", query)["result"][0]["value"][1]) == before + 1)
