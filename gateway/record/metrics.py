"""Every metric, in one table. Labels come from configuration only, never from a user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

ENDPOINTS = ("chat_completions",)
OUTCOMES = ("allow", "advise", "modify", "block", "would_block", "error", "cancelled")
SOURCES = ("triage", "input_rail", "output_rail", "tool_rail", "model", "upstream_filter")
FAST = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class _Row:
    kind: type[Counter] | type[Gauge] | type[Histogram]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


TABLE = (
    _Row(Counter, "requests_total", "Requests that ended, by outcome.", ("endpoint", "policy", "outcome")),
    _Row(
        Counter,
        "refusals_total",
        "Refusals, each once, at the stage that decided; model: the model's own.",
        ("policy", "source", "category"),
    ),
    _Row(Counter, "would_refuse_total", "Refusals that shadow mode let through.", ("policy", "source", "category")),
    _Row(Counter, "triage_total", "Verdicts of triage.", ("label", "route", "tier")),
    _Row(Counter, "rail_decisions_total", "Decisions of rails other than to pass.", ("rail", "stage", "decision")),
    _Row(Counter, "rail_errors_total", "Rails that raised or timed out.", ("rail", "error", "fail_mode")),
    _Row(Histogram, "request_duration_seconds", "Whole requests.", ("endpoint",), SLOW),
    _Row(Histogram, "overhead_seconds", "What the gateway added: all but the upstream.", ("endpoint",), FAST),
    _Row(Histogram, "stage_duration_seconds", "One stage of the data path.", ("stage",), FAST),
    _Row(Histogram, "time_to_first_token_seconds", "Streams: until the first released content.", (), SLOW),
    _Row(Histogram, "stream_holdback_seconds", "Streams: how long a chunk was held to be checked.", (), FAST),
    _Row(Histogram, "upstream_duration_seconds", "Time spent waiting for the model.", (), SLOW),
    _Row(Counter, "tokens_total", "Tokens, as the upstream counted them.", ("type",)),
    _Row(Gauge, "inflight_requests", "Requests in progress."),
    _Row(Gauge, "upstream_breaker_state", "0 closed, 1 half open, 2 open."),
    _Row(Gauge, "build_info", "Always 1.", ("version", "policy_version")),
)


class Metrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # a `_created` series for each would double what is scraped
        self.registry = CollectorRegistry()
        self._by_name: dict[str, Counter | Gauge | Histogram] = {}
        for row in TABLE:
            options: dict[str, Any] = {"buckets": row.buckets} if row.buckets else {}
            name = f"hhh_{row.name}"
            self._by_name[row.name] = row.kind(name, row.help, row.labels, registry=self.registry, **options)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        metric = self._by_name[name]
        assert isinstance(metric, Counter)
        (metric.labels(**labels) if labels else metric).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        metric = self._by_name[name]
        assert isinstance(metric, Histogram)
        (metric.labels(**labels) if labels else metric).observe(value)

    def gauge(self, name: str, **labels: str) -> Gauge:
        metric = self._by_name[name]
        assert isinstance(metric, Gauge)
        return metric.labels(**labels) if labels else metric

    def declare(self, policy: str, policy_version: str, version: str, categories: Iterable[str]) -> None:
        """Make the known label sets exist at zero, so that a rate over them is defined from the start."""
        for outcome in OUTCOMES:
            for endpoint in ENDPOINTS:
                self._by_name["requests_total"].labels(endpoint, policy, outcome)
        for category in (*categories, "rail"):
            for source in ("triage", "input_rail", "output_rail", "tool_rail"):
                self._by_name["refusals_total"].labels(policy, source, category)
        for source in ("model", "upstream_filter"):
            self._by_name["refusals_total"].labels(policy, source, "none")
        for kind in ("prompt", "completion"):
            self._by_name["tokens_total"].labels(kind)
        self.gauge("build_info", version=version, policy_version=policy_version).set(1)

    def expose(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)
