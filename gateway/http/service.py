"""What the endpoints share: one gateway's parts, and whether it may take requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.call import Call
from gateway.config import Config
from gateway.errors import ConfigError, Draining
from gateway.guard.registry import Policies
from gateway.http.auth import Keys
from gateway.pipeline import Pipeline
from gateway.probes.runner import Prober
from gateway.record.audit.recorder import Recorder
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation
from gateway.reload.reloader import Reloader
from gateway.shadow.trial import Trial
from gateway.upstream.base import Upstream


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was let in: its way through the policy as it was then, and what is seen of it."""

    config: Config
    pipeline: Pipeline
    seen: Observation
    trial: Trial | None = None

    def way(self, call: Call) -> Pipeline:
        """The policy's, or for its share of requests its candidate's; where that one looks on, it may later."""
        trial = self.trial
        if trial is None or trial.beside != self.pipeline.guard.policy.name:
            return self.pipeline
        if not trial.serves(call, self.seen.key):
            trial.watch(call, self.seen)
            return self.pipeline
        self.seen.weights = trial.weights
        return _held(Pipeline(trial.guard, self.pipeline.upstream), self.seen)


@dataclass(slots=True)
class Service:
    """Built by `gateway.app.create_app`; `policies` and `upstream` are None until they are loaded."""

    config: Config
    keys: Keys
    metrics: Metrics
    policies: Policies | None = None
    upstream: Upstream | None = None
    draining: bool = False
    failure: ConfigError | None = None
    parts: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    audit: Recorder | None = None
    prober: Prober | None = None
    reloader: Reloader | None = None
    trial: Trial | None = None

    def pipeline(self, policy: str | None = None) -> Pipeline:
        """The way of one request, under a policy as it is now (None: the default). Raises `Draining` while loading."""
        if self.policies is None or self.upstream is None:
            raise Draining("The gateway is still loading.")
        return Pipeline(self.policies.get(policy), self.upstream)

    def visit(self, seen: Observation) -> Visit:
        """Let a request in. Raises `Draining` while loading."""
        return Visit(self.config, _held(self.pipeline(), seen), seen, self.trial)

    async def state(self) -> Literal["ready", "starting", "draining", "upstream not ready", "audit store not ready"]:
        """What /readyz says."""
        if self.draining:
            return "draining"
        if self.policies is None or self.upstream is None:
            return "starting"
        if self.audit is not None and self.audit.must and not self.audit.up:
            return "audit store not ready"
        return "ready" if await self.upstream.ready() else "upstream not ready"

    def observe(self, endpoint: str, request_id: str) -> Observation:
        """Of a request that has just come; under the default policy until it is known whose it is."""
        version = self.policies.get().policy.version if self.policies else "none"
        return Observation(
            self.metrics,
            endpoint,
            self.config.policy,
            version,
            request_id,
            audit=self.audit,
            weights=self.weights,
        )


def _held(pipeline: Pipeline, seen: Observation) -> Pipeline:
    """A request under this policy, which is not let go of before the request has ended."""
    guard = pipeline.guard
    guard.hold()
    seen.ended.append(lambda _: guard.release())
    seen.under(guard.policy.name, guard.policy.version)
    return pipeline
