"""What the endpoints share: one gateway's parts, and whether it may take requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.config import Config
from gateway.errors import ConfigError, Draining
from gateway.http.auth import Keys
from gateway.pipeline import Pipeline
from gateway.probes.runner import Prober
from gateway.record.audit.recorder import Recorder
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation
from gateway.record.tracing import Traces


@dataclass(slots=True)
class Service:
    """Built by `gateway.app.create_app`; `pipeline` is None until policy and models are loaded."""

    config: Config
    keys: Keys
    metrics: Metrics
    pipeline: Pipeline | None = None
    draining: bool = False
    failure: ConfigError | None = None
    parts: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    audit: Recorder | None = None
    prober: Prober | None = None
    traces: Traces | None = None

    def loaded(self) -> Pipeline:
        """The pipeline. Raises `Draining` while it is not there yet."""
        if self.pipeline is None:
            raise Draining("The gateway is still loading.")
        return self.pipeline

    async def state(self) -> Literal["ready", "starting", "draining", "upstream not ready", "audit store not ready"]:
        """What /readyz says."""
        if self.draining:
            return "draining"
        if self.pipeline is None:
            return "starting"
        if self.audit is not None and self.audit.must and not self.audit.up:
            return "audit store not ready"
        return "ready" if await self.pipeline.upstream.ready() else "upstream not ready"

    def observe(self, endpoint: str, request_id: str, headers: Mapping[str, str]) -> Observation:
        pipeline = self.pipeline
        policy = pipeline.guard.policy if pipeline else None
        return Observation(
            self.metrics,
            endpoint,
            policy.name if policy else self.config.policy,
            policy.version if policy else "none",
            request_id,
            audit=self.audit,
            weights=self.weights,
            trace=self.traces.begin(endpoint, headers) if self.traces is not None else None,
        )
