"""What is recorded of a request: decisions counted once, times kept apart, one line of log without text."""

from __future__ import annotations

import time

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.record import logs
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation
from tests.gateway.guard.parts import observation, sample


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def seen(metrics: Metrics) -> Observation:
    return observation(metrics)


def refused(metrics: Metrics, name: str = "refusals_total") -> list[tuple[str, str, float]]:
    found = [s for family in metrics.registry.collect() for s in family.samples if s.name == f"hhh_{name}"]
    return [(s.labels["source"], s.labels["category"], s.value) for s in found]


def test_a_refusal_is_counted_once_where_it_was_decided(metrics: Metrics, seen: Observation) -> None:
    seen.refused("triage", "triage", "harmful.fraud", "triage")
    seen.refused("output", "regex", "rail", "output_rail")
    assert refused(metrics) == [("triage", "harmful.fraud", 1.0)]
    assert (seen.decision, seen.stage, seen.rail, seen.category) == ("block", "triage", "triage", "harmful.fraud")
    assert sample(metrics, "rail_decisions_total", rail="triage", stage="triage", decision="block") == 1


def test_shadow(metrics: Metrics, seen: Observation) -> None:
    seen.refused("input", "regex", "rail", "input_rail", shadow=True)
    seen.refused("output", "regex", "rail", "output_rail", shadow=True)
    assert refused(metrics) == []
    assert refused(metrics, "would_refuse_total") == [("input_rail", "rail", 1.0)]
    assert seen.decision == "would_block"


def test_decisions() -> None:
    def decided(*steps: str) -> str:
        seen = observation()
        for step in steps:
            if step == "advise":
                seen.triaged("regulated_advice", "advise", 0.9, "encoder")
            elif step == "modify":
                seen.modified("input", "mask")
            elif step == "block":
                seen.refused("input", "regex", "rail", "input_rail")
            else:
                seen.failed("UpstreamTimeout")
        return seen.decision

    assert decided() == "allow"
    assert decided("advise") == "advise"
    assert decided("advise", "modify") == "modify"
    assert decided("advise", "modify", "block") == "block"
    assert decided("advise", "error") == "error"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": "7"}, {"prompt_tokens": -1}])
def test_tokens_that_are_none(metrics: Metrics, seen: Observation, usage: dict[str, object] | None) -> None:
    seen.tokens(usage)
    assert sample(metrics, "tokens_total", type="prompt") == 0


def test_tokens(metrics: Metrics, seen: Observation) -> None:
    seen.tokens({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
    assert sample(metrics, "tokens_total", type="prompt") == 3
    assert sample(metrics, "tokens_total", type="completion") == 4


def test_times(metrics: Metrics, seen: Observation) -> None:
    with pytest.raises(ValueError, match="x"), seen.time("triage"):
        raise ValueError("x")
    with seen.time("upstream"):
        time.sleep(0.02)
    seen.client_seconds += 0.01
    time.sleep(0.015)
    seen.finish()
    assert 0.02 <= seen.upstream_seconds < 0.2
    assert sample(metrics, "stage_duration_seconds_count", stage="triage") == 1
    assert sample(metrics, "stage_duration_seconds_count", stage="upstream") == 0
    assert sample(metrics, "upstream_duration_seconds_count") == 1
    total = sample(metrics, "request_duration_seconds_sum", endpoint="chat_completions")
    ours = sample(metrics, "overhead_seconds_sum", endpoint="chat_completions")
    assert total - ours == pytest.approx(seen.upstream_seconds + 0.01)
    found = seen.latency_ms()
    assert found.keys() == {"total", "guard", "upstream"}
    assert found["total"] >= found["upstream"] >= 20


def test_overhead_is_never_negative(metrics: Metrics, seen: Observation) -> None:
    seen.upstream_seconds = 100
    seen.finish()
    assert sample(metrics, "overhead_seconds_sum", endpoint="chat_completions") == 0


def test_one_line_at_the_end(metrics: Metrics, seen: Observation) -> None:
    seen.refused("triage", "triage", "harmful.fraud", "triage")
    with capture_logs() as lines:
        seen.finish()
        seen.finish()
        seen.finish("cancelled")
    (line,) = lines
    assert (line["event"], line["outcome"], line["category"]) == ("request", "block", "harmful.fraud")
    assert line["policy"] == "test@sha256:0"
    assert {"total_ms", "guard_ms", "upstream_ms", "request_id", "route", "score"} <= line.keys()
    assert sample(metrics, "requests_total", endpoint="chat_completions", policy="test", outcome="block") == 1


def test_a_failing_rail_is_logged_by_name_only(metrics: Metrics, seen: Observation) -> None:
    with capture_logs() as lines:
        seen.rail_failed("triage", "timeout", "closed")
    assert lines == [
        {"event": "rail failed", "log_level": "warning", "request_id": "req_1", "rail": "triage", "error": "timeout",
         "fail_mode": "closed"}
    ]  # fmt: skip
    assert sample(metrics, "rail_errors_total", rail="triage", error="timeout", fail_mode="closed") == 1


def test_models_refusals_stand_apart(metrics: Metrics, seen: Observation) -> None:
    seen.model_refused("model")
    assert refused(metrics) == [("model", "none", 1.0)]
    assert seen.decision == "allow"


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_logs_are_json_at_their_level(level: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    try:
        logs.configure(level)
        log = structlog.get_logger()
        log.debug("a")
        log.info("b", seconds=1.5)
        log.warning("c")
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        structlog.reset_defaults()
    assert len(found) == lines
    assert all({"event", "level", "timestamp"} <= line.keys() for line in found)
