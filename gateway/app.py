"""`create_app(config)` builds the gateway. Nothing happens on import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from classifiers.cascade import fingerprint
from classifiers.labels import CATEGORIES, LABELS
from classifiers.message import Classifier
from classifiers.shipped import TRIAGE
from gateway import __version__
from gateway.call import dump
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.guard.loader import Loader
from gateway.guard.rails import Guard
from gateway.guard.registry import Policies
from gateway.http import errors
from gateway.http.exchange import request_id
from gateway.http.middleware import Inflight
from gateway.http.routes import ROUTES
from gateway.http.service import Service
from gateway.keys.fit import fit
from gateway.keys.ring import Ring
from gateway.probes import suites
from gateway.probes.runner import Prober
from gateway.quota.limiter import Limiter
from gateway.record.audit.recorder import Recorder
from gateway.record.metrics import Metrics
from gateway.record.tracing import Traces
from gateway.reload.reloader import Place, Reloader
from gateway.shadow.candidate import Candidate
from gateway.shadow.trial import Trial
from gateway.upstream.base import Upstream


def create_app(
    config: Config,
    upstream: Upstream | None = None,
    classifier: Classifier | None = None,
    shared: Path | None = None,
) -> FastAPI:
    """The ASGI application. `upstream` and `classifier` replace those that the configuration names.

    `shared`: the folder where this process and others keep their metrics, to be shown as one.

    Policy and models load in the lifespan, before the port opens. What cannot be loaded raises
    `gateway.errors.ConfigError`, kept in `app.state.service.failure`, and the server does not start.
    """
    metrics = Metrics(shared)
    ring = Ring(config.keys_file, config.client_keys(), metrics, fit(config))
    service = Service(config, ring, Limiter(config.limits, metrics), metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        began = time.perf_counter()
        try:
            ring.open()
            loader = await asyncio.to_thread(Loader.of, config, classifier)
            candidate = await asyncio.to_thread(Candidate.of, config, loader)
            names = dict.fromkeys((config.policy, *ring.policies))
            guards = {name: await asyncio.to_thread(loader.guard, name) for name in names}
            tried = await asyncio.to_thread(candidate.guard) if candidate is not None else None
            model = upstream or build_upstream(config, metrics)
            probes = suites.load(config.probes.folder)
            service.audit = build_audit(config, metrics)
            service.traces = Traces(config.tracing) if config.tracing.endpoint else None
            await asyncio.gather(
                model.start(), *(guard.warm() for guard in [*guards.values(), *([tried] if tried else [])])
            )
            if service.audit is not None:
                await service.audit.start()
        except ConfigError as error:
            service.failure = error
            raise
        default = guards[config.policy].policy
        metrics.declare(default.name, default.version, __version__, (*LABELS, *CATEGORIES))
        service.parts = {"policy": f"{default.name}@{default.version}", "upstream": config.upstream.kind}
        service.weights = triage_version(config)
        for name in guards:
            metrics.declare_policy(name, (*LABELS, *CATEGORIES))
        service.limiter.declare(ring.callers)
        await service.limiter.start()
        metrics.gauge("workers").set(1)
        service.build = loader.guard
        service.upstream = model
        service.policies = policies = Policies(guards, config.policy)
        service.prober = prober = Prober(
            probes,
            policies.get,
            metrics,
            service.weights,
            service.audit.store if service.audit is not None else None,
        )
        structlog.get_logger().info("ready", seconds=round(time.perf_counter() - began, 2), **service.parts)
        every, pause = config.probes.every_seconds, config.probes.pause_seconds
        probing = asyncio.create_task(prober.repeat(every, pause)) if every else None

        def swapped(guard: Guard) -> None:
            found = guard.policy
            if found.name == policies.default:
                metrics.declare(found.name, found.version, __version__, (*LABELS, *CATEGORIES))
                service.parts["policy"] = f"{found.name}@{found.version}"
                prober.again()

        if candidate is not None and tried is not None:
            store = service.audit.store if service.audit is not None else None
            service.trial = Trial(tried, candidate.weights, config.policy, config.shadow, metrics, store)
            service.trial.start()
            if config.shadow.mode == "serve":
                metrics.declare_policy(candidate.name, (*LABELS, *CATEGORIES))
        service.reloader = Reloader(
            lambda: _places(loader, policies, candidate, service.trial), config.reload, metrics, swapped
        )
        service.reloader.start()
        try:
            yield
        finally:
            service.draining = True
            if probing is not None:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
            await service.reloader.close()
            if service.trial is not None:
                await service.trial.close()
            await asyncio.gather(model.close(), policies.close(), service.limiter.close())
            loader.close()
            if candidate is not None:
                candidate.close()
            if service.audit is not None:
                await service.audit.close()
            if service.traces is not None:
                await asyncio.to_thread(service.traces.close)

    app = FastAPI(
        title="hhh-gateway",
        version=__version__,
        lifespan=lifespan,
        routes=list(ROUTES),
        middleware=[Middleware(Inflight, gauge=metrics.gauge("inflight_requests"))],
        exception_handlers={HTTPException: _no_route},
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service = service
    return app


def _places(loader: Loader, policies: Policies, candidate: Candidate | None, trial: Trial | None) -> list[Place]:
    """All policies that can be edited while they are used: those of the registry, and a candidate."""

    def place(name: str) -> Place:
        return Place(
            name,
            loader.folder / name,
            lambda: policies.get(name),
            lambda: loader.guard(name),
            lambda guard: policies.swap({name: guard})[name],
        )

    found = [place(name) for name in policies.names]
    if candidate is not None and trial is not None:
        found.append(Place(candidate.name, candidate.folder, lambda: trial.guard, candidate.guard, trial.swap))
    return found


def build_audit(config: Config, metrics: Metrics) -> Recorder | None:
    """Who keeps the decisions, not yet open; None where nobody does."""
    if config.audit.url is None:
        return None
    from gateway.record.audit import redaction
    from gateway.record.audit.store import Store

    redact = redaction.build(config.audit.pii_model) if config.audit.text == "redacted" else None
    return Recorder(Store(config.audit), config.audit, metrics, redact)


def triage_version(config: Config) -> str:
    """The first hex digits of the encoder's sha256, by which records tell one classifier from the next."""
    return fingerprint(config.triage.weights or TRIAGE)[:12]


def build_upstream(config: Config, metrics: Metrics) -> Upstream:
    """The model that the configuration names; its heavy imports happen here, and only for the kind that is used."""
    settings = config.upstream
    if settings.kind == "remote":
        from gateway.upstream.remote import Remote

        return Remote(settings, metrics.gauge("upstream_breaker_state"))
    from gateway.upstream.inprocess import InProcess

    if settings.model is None:
        from gateway.upstream.embedded import EmbeddedEngine

        return InProcess(EmbeddedEngine(None, settings.threads, settings.max_batch))
    from gateway.upstream.local import TransformersEngine

    return InProcess(TransformersEngine(settings.model, settings.threads, settings.max_batch))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: f"Unknown request URL: {request.method} {request.url.path}.", 405: "Method not allowed."}
    code = {404: "unknown_url", 405: "method_not_allowed"}
    content: Any = errors.body(
        message.get(error.status_code, str(error.detail)), "invalid_request_error", code=code.get(error.status_code)
    )
    headers = {**(error.headers or {}), "x-request-id": request_id(request)}
    return Response(dump(content), error.status_code, media_type="application/json", headers=headers)
