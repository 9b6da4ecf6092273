"""What the endpoints share: one gateway's parts, who may call it, and whether it may take requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import structlog

from classifiers.labels import CATEGORIES, LABELS
from gateway.call import Call, OnBlock
from gateway.config import Config
from gateway.errors import ConfigError, Draining, ModelNotFound
from gateway.guard.rails import Guard
from gateway.guard.registry import Policies
from gateway.http.auth import authenticate
from gateway.keys.caller import Caller
from gateway.keys.ring import Ring
from gateway.pipeline import Pipeline
from gateway.probes.runner import Prober
from gateway.quota.limiter import Limiter
from gateway.record.audit.recorder import Recorder
from gateway.record.metrics import Metrics
from gateway.record.observation import Observation
from gateway.record.tracing import Traces
from gateway.reload.reloader import Reloader
from gateway.shadow.trial import Trial
from gateway.upstream.base import Upstream


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was let in: whose it is, its way through the policy as it was then, and what is seen of it."""

    config: Config
    caller: Caller
    pipeline: Pipeline
    limiter: Limiter
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

    @property
    def on_block(self) -> OnBlock:
        """The key's, else the policy's."""
        return self.caller.on_block or self.pipeline.guard.policy.rules.on_block

    async def admit(self, call: Call, until: AsyncExitStack) -> None:
        """Now that it is known what is asked. Raises `ModelNotFound` and `RateLimited`."""
        if not self.caller.may_use(call.model):
            raise ModelNotFound(call.model)
        await self.limiter.reserve(self.caller, call, self.seen, until)


@dataclass(slots=True)
class Service:
    """Built by `gateway.app.create_app`; `policies` and `upstream` are None until they are loaded."""

    config: Config
    ring: Ring
    limiter: Limiter
    metrics: Metrics
    policies: Policies | None = None
    upstream: Upstream | None = None
    build: Callable[[str], Guard] | None = None
    draining: bool = False
    failure: ConfigError | None = None
    parts: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    audit: Recorder | None = None
    prober: Prober | None = None
    reloader: Reloader | None = None
    trial: Trial | None = None
    loading: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    traces: Traces | None = None

    def pipeline(self, policy: str | None = None) -> Pipeline:
        """The way of one request, under a policy as it is now (None: the default). Raises `Draining` while loading."""
        if self.policies is None or self.upstream is None:
            raise Draining("The gateway is still loading.")
        try:
            return Pipeline(self.policies.get(policy), self.upstream)
        except KeyError:
            raise Draining("The policy of this key is still loading.") from None

    def refresh(self) -> None:
        """Put the keys in force that their file has now."""
        if self.ring.refresh():
            self.limiter.declare(self.ring.callers)
            for name in self.ring.policies:
                self._load(name)

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request it is, by the keys as they are now. Raises `Unauthorized`."""
        self.refresh()
        return authenticate(self.ring, headers.get("authorization"), headers.get("x-api-key"))

    def visit(self, headers: Mapping[str, str], seen: Observation) -> Visit:
        """Let a request in. Raises `Unauthorized`, and `Draining` while loading."""
        caller = self.caller(headers)
        seen.key = caller.name
        pipeline = _held(self.pipeline(caller.policy), seen)
        return Visit(self.config, caller, pipeline, self.limiter, seen, self.trial)

    def under(self, name: str, seen: Observation) -> Pipeline:
        """The way of a request under a policy of its choice. Raises `Draining` while that is loading."""
        return _held(self.pipeline(name), seen)

    def _load(self, name: str) -> None:
        """Load a policy that a new key names. Until it is there, that key is told to wait."""
        if self.policies is None or name in self.policies.names or name in self.loading:
            return
        self.loading[name] = asyncio.create_task(self._loaded(name, self.policies))

    async def _loaded(self, name: str, policies: Policies) -> None:
        assert self.build is not None
        try:
            guard = await asyncio.to_thread(self.build, name)
            await guard.warm()
        except ConfigError as error:
            structlog.get_logger().error("policy of a key not loaded", policy=name, error=str(error))
            return
        finally:
            del self.loading[name]
        self.metrics.declare_policy(name, (*LABELS, *CATEGORIES))
        policies.swap({name: guard})
        structlog.get_logger().info("policy loaded", policy=f"{name}@{guard.policy.version}")

    async def state(self) -> Literal["ready", "starting", "draining", "upstream not ready", "audit store not ready"]:
        """What /readyz says."""
        if self.draining:
            return "draining"
        if self.policies is None or self.upstream is None:
            return "starting"
        if self.audit is not None and self.audit.must and not self.audit.up:
            return "audit store not ready"
        return "ready" if await self.upstream.ready() else "upstream not ready"

    def observe(self, endpoint: str, request_id: str, headers: Mapping[str, str]) -> Observation:
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
            trace=self.traces.begin(endpoint, headers) if self.traces is not None else None,
        )


def _held(pipeline: Pipeline, seen: Observation) -> Pipeline:
    """A request under this policy, which is not let go of before the request has ended."""
    guard = pipeline.guard
    guard.hold()
    seen.ended.append(lambda _: guard.release())
    seen.under(guard.policy.name, guard.policy.version)
    return pipeline
