"""The table of metrics: documented, in Prometheus' manner, and what is known is there at zero."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from classifiers.labels import CATEGORIES, LABELS
from gateway.guard.verdict import SOURCES
from gateway.record.metrics import MODEL_SOURCES, OUTCOMES, OWN_SOURCES, TABLE, Metrics
from tests.conftest import ROOT


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.declare("finance", "sha256:1", "0.1", (*LABELS, *CATEGORIES))
    return found


def test_table_follows_the_conventions() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    for row in TABLE:
        assert re.fullmatch(r"[a-z][a-z_]+", row.name)
        assert row.help.endswith(".")
        assert (row.kind is Counter) == row.name.endswith("_total")
        assert row.kind is not Histogram or (row.name.endswith("_seconds") and list(row.buckets) == sorted(row.buckets))
        assert row.kind in (Counter, Gauge, Histogram)
        assert not {"user", "model", "key", "path", "request_id"} & set(row.labels)


def test_table_is_documented() -> None:
    said = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert [row.name for row in TABLE if f"hhh_{row.name}" not in said] == []


def test_what_is_known_is_there_at_zero(metrics: Metrics) -> None:
    values = {
        (found.name, tuple(sorted(found.labels.items()))): found.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for found in family.samples
    }

    def at(name: str, **labels: str) -> float:
        return values[f"hhh_{name}", tuple(sorted(labels.items()))]

    for outcome in OUTCOMES:
        assert at("requests_total", endpoint="chat_completions", policy="finance", outcome=outcome) == 0
    for category in (*LABELS, *CATEGORIES, "rail"):
        for source in OWN_SOURCES:
            assert at("refusals_total", policy="finance", source=source, category=category) == 0
            assert at("would_refuse_total", policy="finance", source=source, category=category) == 0
    for source in MODEL_SOURCES:
        assert at("refusals_total", policy="finance", source=source, category="none") == 0
    for label in LABELS:
        for route in ("allow", "advise", "review", "refuse"):
            assert at("triage_total", label=label, route=route, tier="encoder") == 0
    for stage in ("triage", "input_rails", "output_rails"):
        assert at("stage_duration_seconds_count", stage=stage) == 0
    for kind in ("prompt", "completion"):
        assert at("tokens_total", type=kind) == 0
    for name in ("time_to_first_token_seconds", "stream_holdback_seconds", "upstream_duration_seconds"):
        assert at(f"{name}_count") == 0
    for name in ("request_duration_seconds", "overhead_seconds"):
        assert at(f"{name}_count", endpoint="chat_completions") == 0
    assert at("inflight_requests") == at("upstream_breaker_state") == 0
    assert at("build_info", version="0.1", policy_version="sha256:1") == 1
    assert sum(value for (name, _), value in values.items() if name != "hhh_build_info") == 0


def test_sources_are_those_of_the_stages() -> None:
    assert set(SOURCES.values()) == set(OWN_SOURCES)


def test_a_new_policy_replaces_the_old_one(metrics: Metrics) -> None:
    metrics.declare("finance", "sha256:2", "0.1", LABELS)
    lines = [line for line in metrics.expose().decode().splitlines() if line.startswith("hhh_build_info{")]
    assert lines == ['hhh_build_info{policy_version="sha256:2",version="0.1"} 1.0']


def test_no_created_series(metrics: Metrics) -> None:
    assert "_created" not in metrics.expose().decode()


def test_gateways_do_not_share_a_registry(metrics: Metrics) -> None:
    metrics.count("tokens_total", 3, type="prompt")
    assert Metrics().registry.get_sample_value("hhh_tokens_total", {"type": "prompt"}) is None


def test_kinds_are_kept_apart(metrics: Metrics) -> None:
    with pytest.raises(AssertionError):
        metrics.count("inflight_requests")
    with pytest.raises(AssertionError):
        metrics.observe("tokens_total", 1, type="prompt")
    with pytest.raises(AssertionError):
        metrics.gauge("tokens_total")
    with pytest.raises(KeyError):
        metrics.count("no_such_total")
    with pytest.raises(ValueError, match="label"):
        metrics.count("tokens_total", 1, kind="prompt")
