"""Every metric, in one table. Labels come from configuration only, never from a user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.call import UNCHECKED, Route

ENDPOINTS = (
    "chat_completions", "responses", "completions", "embeddings", "moderations", "guardrails_check", "litellm_guardrail"
)  # fmt: skip
OUTCOMES = ("allow", "advise", "modify", "block", "would_block", "error", "cancelled")
STAGES = ("triage", "input_rails", "output_rails")
# Who refused: the gateway, at one of its stages, or the model and what stands behind it.
OWN_SOURCES = ("triage", "input_rail", "output_rail", "tool_rail")
MODEL_SOURCES = ("model", "upstream_filter")
VERDICTS = ("wrong_refusal", "missed_harm", "correct")
RECORDED = ("written", "late", "dropped")
Reloaded = Literal["ok", "invalid", "self_test", "error"]
LOOKED = ("allow", "advise", "refuse", "failed")
DROPPED = ("queue_full", "rejected", "shutdown")
FAST = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


# What a gauge says where several processes have one each; `live`: those that have died no longer count.
Several = Literal["livesum", "livemax", "livemin", "max"]


@dataclass(frozen=True, slots=True)
class _Row:
    kind: type[Counter] | type[Gauge] | type[Histogram]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    several: Several = "livemax"


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
    _Row(
        Counter,
        "unchecked_content_total",
        "New images, sound, files and tokens, which no check reads.",
        ("endpoint", "kind"),
    ),
    _Row(Histogram, "request_duration_seconds", "Whole requests.", ("endpoint",), SLOW),
    _Row(Histogram, "overhead_seconds", "What the gateway added: all but the upstream.", ("endpoint",), FAST),
    _Row(Histogram, "stage_duration_seconds", "One stage of the data path.", ("stage",), FAST),
    _Row(Histogram, "time_to_first_token_seconds", "Streams: until the first released content.", (), SLOW),
    _Row(
        Histogram,
        "stream_holdback_seconds",
        "Streams: how long text was held to be checked, the longest of each release.",
        (),
        FAST,
    ),
    _Row(Histogram, "upstream_duration_seconds", "Time spent waiting for the model.", (), SLOW),
    _Row(Counter, "tokens_total", "Tokens, as the upstream counted them.", ("type",)),
    _Row(Gauge, "inflight_requests", "Requests in progress.", several="livesum"),
    _Row(Gauge, "workers", "Processes that serve.", several="livesum"),
    _Row(Counter, "worker_restarts_total", "Workers that died and were started again."),
    _Row(Gauge, "upstream_breaker_state", "0 closed, 1 half open, 2 open."),
    _Row(Counter, "audit_records_total", "Audit records; late: a refusal's, after its reply had left.", ("result",)),
    _Row(Counter, "audit_dropped_total", "Audit records that were lost.", ("reason",)),
    _Row(Counter, "audit_failures_total", "Failures of the audit store."),
    _Row(Histogram, "audit_wait_seconds", "How long a refusal waited for its record.", (), FAST),
    _Row(Gauge, "audit_up", "Whether the audit store takes records.", several="livemin"),
    _Row(Counter, "limited_requests_total", "Requests over a limit of their key.", ("key_name", "limit")),
    _Row(Counter, "limit_failures_total", "Limits that could not be counted."),
    _Row(
        Counter, "key_file_loads_total", "How the keys file was read; rejected: the keys before it stay.", ("result",)
    ),
    _Row(Counter, "feedback_total", "What people said of decisions.", ("verdict",)),
    _Row(
        Counter,
        "probe_results_total",
        "Standing probes by what was expected and what was seen: the live confusion matrix.",
        ("suite", "expected", "observed"),
    ),
    _Row(
        Gauge,
        "probe_last_run_timestamp_seconds",
        "When the probes last ran, in seconds since 1970; 0: not yet.",
        several="max",
    ),
    _Row(
        Counter,
        "config_reloads_total",
        "Attempts to put an edited policy in force; invalid: its files, self_test: its examples; the old one stays.",
        ("result",),
    ),
    _Row(
        Gauge,
        "config_current",
        "Whether the policies in force are those in the folders; 0: the last try failed.",
        several="livemin",
    ),
    _Row(
        Counter,
        "shadow_decisions_total",
        "Requests that the candidate looked at: what the live policy made of them, and what it would.",
        ("live", "candidate"),
    ),
    _Row(Counter, "shadow_dropped_total", "Requests that the candidate did not look at.", ("reason",)),
    _Row(Gauge, "build_info", "Always 1.", ("version", "policy_version")),
)


class Metrics:
    """The metrics of one gateway, in a registry of their own.

    `shared`: the folder where the processes of one gateway keep theirs, which PROMETHEUS_MULTIPROC_DIR must have named
    when this process began. What is exposed is then those of all.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._build: dict[str, str] = {}
        # A `_created` series for each would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._by_name: dict[str, Counter | Gauge | Histogram] = {}
        for row in TABLE:
            options: dict[str, Any] = {"buckets": row.buckets} if row.buckets else {}
            if row.kind is Gauge:
                options["multiprocess_mode"] = row.several
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
        self.declare_policy(policy, categories := tuple(categories))
        for endpoint in ENDPOINTS:
            self._by_name["request_duration_seconds"].labels(endpoint)
            self._by_name["overhead_seconds"].labels(endpoint)
            for kind in UNCHECKED:
                self._by_name["unchecked_content_total"].labels(endpoint, kind)
        for label in categories:
            if "." not in label:
                for route in get_args(Route):
                    self._by_name["triage_total"].labels(label, route, "encoder")
        for route, tier in (("allow", "none"), ("review", "failed")):  # nothing new to judge; no verdict
            self._by_name["triage_total"].labels("benign", route, tier)
        for stage in STAGES:
            self._by_name["stage_duration_seconds"].labels(stage)
        for kind in ("prompt", "completion"):
            self._by_name["tokens_total"].labels(kind)
        for name, label, values in (
            ("audit_records_total", "result", RECORDED),
            ("audit_dropped_total", "reason", DROPPED),
            ("feedback_total", "verdict", VERDICTS),
            ("shadow_dropped_total", "reason", ("queue_full", "too_large")),
            ("config_reloads_total", "result", get_args(Reloaded)),
            ("key_file_loads_total", "result", ("loaded", "rejected")),
        ):
            for value in values:
                self._by_name[name].labels(**{label: value})
        for live in LOOKED[:3]:
            for candidate in LOOKED:
                self._by_name["shadow_decisions_total"].labels(live, candidate)
        if self._shared is None:
            self._by_name["build_info"].clear()  # of a policy that was replaced
        elif self._build:
            self.gauge("build_info", **self._build).set(0)  # what is shared cannot be cleared
        self._build = {"version": version, "policy_version": policy_version}
        self.gauge("build_info", **self._build).set(1)

    def declare_policy(self, policy: str, categories: Iterable[str]) -> None:
        """The same for what has a policy for a label."""
        for endpoint in ENDPOINTS:
            for outcome in OUTCOMES:
                self._by_name["requests_total"].labels(endpoint, policy, outcome)
        for category in (*dict.fromkeys(categories), "rail"):
            for source in OWN_SOURCES:
                self._by_name["refusals_total"].labels(policy, source, category)
                self._by_name["would_refuse_total"].labels(policy, source, category)
        for source in MODEL_SOURCES:
            self._by_name["refusals_total"].labels(policy, source, "none")

    def expose(self) -> bytes:
        """The text format that Prometheus scrapes."""
        if self._shared is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Unrecorded(Metrics):
    """Takes what it is told, and keeps nothing of it."""

    def __init__(self) -> None:
        self._by_name = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        pass

    def observe(self, name: str, value: float, **labels: str) -> None:
        pass
