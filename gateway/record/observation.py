"""What is recorded of one request: times per stage, the decision and its reason, tokens. One line of log at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.record.audit.entry import Audit, Entry, fingerprint
from gateway.record.metrics import Metrics
from gateway.record.tracing import Trace


@dataclass(frozen=True, slots=True)
class Step:
    """One check that ran, for whoever asks for the details. `rail`: the one that decided, "" where none did."""

    stage: str
    lane: str
    rails: tuple[str, ...]
    ms: float
    outcome: str
    rail: str = ""


@dataclass(slots=True)
class Observation:
    """Filled in by the stages as the request flows down; `finish` turns it into metrics and a log line, once.

    Of the seconds, those of the upstream are waited for the model, those of the client until it takes what it is sent.
    `answered`: a streaming model has begun to. `told`: headers of the model server's that
    are for the client. `unchecked`: the kinds of new content that no check reads. `limits`: headers that say what is
    left to the key. `spent`: tokens as the upstream counted them, None where it says nothing; `spoken`: characters of a
    streamed reply. `ended`: called when all is over. `record`: the id of what was kept of it. `steps`: the checks that
    ran, kept where somebody asked for them.
    """

    metrics: Metrics
    endpoint: str
    policy: str
    policy_version: str
    request_id: str
    stream: bool = False
    started: float = field(default_factory=time.perf_counter)
    decision: str = "allow"
    stage: str = ""
    rail: str = ""
    category: str = ""
    label: str = ""
    route: str = ""
    score: float = 0.0
    upstream_seconds: float = 0.0
    client_seconds: float = 0.0
    guard_seconds: float = 0.0
    error: str = ""
    answered: bool = False
    told: Mapping[str, str] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    finished: bool = False
    audit: Audit | None = None
    key: str = ""
    weights: str = ""
    source: str = ""
    tier: str = ""
    judged: str = "benign"
    scores: Mapping[str, float] = field(default_factory=dict)
    sha256: str = ""
    text: str | None = None
    recorded: bool = False
    record: str = ""
    ended: list[Callable[[Observation], None]] = field(default_factory=list)
    trace: Trace | None = None
    model: str = ""
    used: dict[str, int] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    spent: int | None = None
    spoken: int = 0
    steps: list[Step] | None = None

    def under(self, policy: str, version: str) -> None:
        """Whose policy it is."""
        self.policy, self.policy_version = policy, version

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Measure one stage; the stage `upstream` is time that is not ours."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def add(self, stage: str, seconds: float) -> None:
        if self.trace is not None:
            self.trace.stage(stage, seconds)
        if stage == "upstream":
            self.upstream_seconds += seconds
        else:
            self.guard_seconds += seconds
            if stage == "triage":
                self.ran(Step(stage, stage, (stage,), round(seconds * 1e3, 2), "pass"))
            self.metrics.observe("stage_duration_seconds", seconds, stage=stage)

    def ran(self, step: Step) -> None:
        """A check that ran, whatever came of it."""
        if self.steps is not None:
            self.steps.append(step)

    def asked(self, text: str) -> None:
        """What is new in the request; from here on there is a decision to record. Raises `AuditFailed`."""
        if self.audit is None:
            return
        self.audit.admit()
        self.sha256 = fingerprint(text)
        self.text = self.audit.shown(text)

    def triaged(
        self,
        label: str,
        route: str,
        score: float,
        tier: str,
        category: str = "benign",
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.label, self.route, self.score, self.tier = label, route, score, tier
        self.judged, self.scores = category, scores or {}
        if route == "advise":
            self.decision = "advise"
        self.metrics.count("triage_total", label=label, route=route, tier=tier)

    def carries(self, unchecked: Iterable[str]) -> None:
        """New content that no check reads, one kind for each."""
        self.unchecked = tuple(unchecked)
        for kind in self.unchecked:
            self.metrics.count("unchecked_content_total", endpoint=self.endpoint, kind=kind)

    def modified(self, stage: str, rail: str) -> None:
        self.decision, self.stage, self.rail = "modify", stage, rail
        self.metrics.count("rail_decisions_total", rail=rail, stage=stage, decision="modify")

    def refused(self, stage: str, rail: str, category: str, source: str, *, shadow: bool = False) -> None:
        """A block, or in shadow mode what would have been one. Counted once per request, where it was decided."""
        if self.decision in ("block", "would_block"):
            return
        self.decision = "would_block" if shadow else "block"
        self.stage, self.rail, self.category, self.source = stage, rail, category, source
        name = "would_refuse_total" if shadow else "refusals_total"
        self.metrics.count(name, policy=self.policy, source=source, category=category)
        self.metrics.count("rail_decisions_total", rail=rail, stage=stage, decision=self.decision)

    def model_refused(self, source: str) -> None:
        """The model's own refusal (`model`), or that of a filter behind it (`upstream_filter`)."""
        self.source = source
        self.metrics.count("refusals_total", policy=self.policy, source=source, category="none")

    def rail_failed(self, rail: str, error: str, fail_mode: str) -> None:
        self.metrics.count("rail_errors_total", rail=rail, error=error, fail_mode=fail_mode)
        structlog.get_logger().warning(
            "rail failed", request_id=self.request_id, rail=rail, error=error, fail_mode=fail_mode
        )

    def failed(self, error: str) -> None:
        self.decision, self.error = "error", error

    def tokens(self, usage: Mapping[str, Any] | None) -> None:
        """Count what the upstream says it used; responses call it input and output."""
        for kind, other in (("prompt", "input"), ("completion", "output")):
            found = usage or {}
            counted = found.get(f"{kind}_tokens", found.get(f"{other}_tokens"))
            if isinstance(counted, int) and counted >= 0 and usage:
                self.spent = (self.spent or 0) + counted
            if isinstance(counted, int) and counted > 0:
                self.metrics.count("tokens_total", counted, type=kind)
                self.used[other] = self.used.get(other, 0) + counted

    def latency_ms(self) -> dict[str, float]:
        """Milliseconds so far: in all, in the checks, and waiting for the model."""
        return {
            "total": round((time.perf_counter() - self.started) * 1e3, 2),
            "guard": round(self.guard_seconds * 1e3, 2),
            "upstream": round(self.upstream_seconds * 1e3, 2),
        }

    async def settle(self) -> None:
        """To be awaited before anything of a refusal leaves: its record comes first. Raises `AuditFailed`."""
        if self.decision == "block" and self.audit is not None and not self.recorded:
            self.recorded = True
            entry = self._entry(self.decision)
            self.record = entry.id
            await self.audit.keep(entry)

    def _entry(self, decision: str) -> Entry:
        taken = self.latency_ms()
        return Entry(
            request_id=self.request_id,
            key=self.key,
            endpoint=self.endpoint,
            policy=self.policy,
            policy_version=self.policy_version,
            weights=self.weights,
            decision=decision,
            label=self.label,
            category=self.category or self.judged,
            score=self.score,
            scores={label: round(score, 5) for label, score in self.scores.items()},
            route=self.route,
            tier=self.tier,
            stage=self.stage,
            rail=self.rail,
            source=self.source,
            error=self.error,
            stream=self.stream,
            total_ms=taken["total"],
            guard_ms=taken["guard"],
            upstream_ms=taken["upstream"],
            sha256=self.sha256,
            text=self.text,
        )

    def finish(self, outcome: str | None = None) -> None:
        if self.finished:
            return
        self.finished = True
        if self.audit is not None and self.sha256 and not self.recorded:
            self.recorded = True
            entry = self._entry(outcome or self.decision)
            self.record = entry.id
            self.audit.add(entry)
        total = time.perf_counter() - self.started
        self.metrics.count(
            "requests_total", endpoint=self.endpoint, policy=self.policy, outcome=outcome or self.decision
        )
        self.metrics.observe("request_duration_seconds", total, endpoint=self.endpoint)
        ours = total - self.upstream_seconds - self.client_seconds
        self.metrics.observe("overhead_seconds", max(0.0, ours), endpoint=self.endpoint)
        if self.upstream_seconds:
            self.metrics.observe("upstream_duration_seconds", self.upstream_seconds)
        if self.trace is not None:
            self.trace.end(self._said(outcome or self.decision), self.error)
        structlog.get_logger().info(
            "request",
            request_id=self.request_id,
            key=self.key,
            outcome=outcome or self.decision,
            stage=self.stage,
            rail=self.rail,
            category=self.category,
            label=self.label,
            score=round(self.score, 4),
            route=self.route,
            policy=f"{self.policy}@{self.policy_version}",
            stream=self.stream,
            error=self.error,
            **{f"{name}_ms": value for name, value in self.latency_ms().items()},
        )
        for call in self.ended:
            call(self)

    def _said(self, outcome: str) -> dict[str, Any]:
        """What a trace says of the request."""
        return {
            "gen_ai.request.model": self.model,
            **{f"gen_ai.usage.{kind}_tokens": count for kind, count in self.used.items()},
            "hhh.request_id": self.request_id,
            "hhh.outcome": outcome,
            "hhh.policy.name": self.policy,
            "hhh.policy.version": self.policy_version,
            "hhh.triage.label": self.label,
            "hhh.triage.score": round(self.score, 4),
            "hhh.route": self.route,
            "hhh.stage": self.stage,
            "hhh.rail": self.rail,
            "hhh.category": self.category,
            "hhh.stream": self.stream,
        }
