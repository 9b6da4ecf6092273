"""Traces, where the extra `tracing` is installed and a collector is named: one span a request, one below it a stage.

Names and attributes are OpenTelemetry's for generative AI; what is ours begins with `hhh.`. A span carries what the log
line carries: no text of a message, no key. Stages are measured anyway, so their spans are made when they have ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.config import Tracing as Settings
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_OPERATIONS = {"chat_completions": "chat", "responses": "chat", "completions": "text_completion"}
_SENT: ContextVar[Mapping[str, str]] = ContextVar("trace headers", default={})  # noqa: B039  nobody changes it


def headers() -> Mapping[str, str]:
    """What a call to the model server carries so that its spans join the request's; nothing without tracing."""
    return _SENT.get()


class Trace:
    """The span of one request."""

    def __init__(self, provider: TracerProvider, endpoint: str, given: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("hhh-gateway", __version__)
        self._operation = _OPERATIONS.get(endpoint, endpoint)
        parent = TraceContextTextMapPropagator().extract(given)
        self._span = self._tracer.start_span(self._operation, parent, trace.SpanKind.SERVER)
        self._context = trace.set_span_in_context(self._span)
        sent: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(sent, self._context)
        _SENT.set(sent)

    def stage(self, name: str, seconds: float) -> None:
        """A stage that has just ended. `upstream` is the model's, and a call of its own."""
        from opentelemetry import trace

        kind = trace.SpanKind.CLIENT if name == "upstream" else trace.SpanKind.INTERNAL
        now = time.time_ns()
        began = now - int(seconds * 1e9)
        self._tracer.start_span(name, self._context, kind, start_time=began).end(now)

    def end(self, said: Mapping[str, Any], error: str) -> None:
        """With what is known of the request; `error` is its name, empty where there was none."""
        from opentelemetry.trace import Status, StatusCode

        known = {"gen_ai.operation.name": self._operation, **said}
        model = known.get("gen_ai.request.model")
        self._span.update_name(f"{self._operation} {model}" if model else self._operation)
        self._span.set_attributes({name: value for name, value in known.items() if value not in (None, "")})
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Traces:
    """Where spans go. `close` sends what is left; it blocks, for a few seconds where the collector is away."""

    def __init__(self, settings: Settings, exporter: SpanExporter | None = None) -> None:
        """Raises `ConfigError` where the extra is not installed."""
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=5)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"tracing.endpoint: {error.name} is not installed; pip install 'hhh-gateway[tracing]'"
            ) from None
        about = {"service.name": settings.service, "service.version": __version__}
        self._provider = TracerProvider(ParentBasedTraceIdRatio(settings.share), Resource.create(about))
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))

    def begin(self, endpoint: str, given: Mapping[str, str]) -> Trace:
        """The span of a request that has just come; `given` are its headers."""
        return Trace(self._provider, endpoint, given)

    def close(self) -> None:
        self._provider.shutdown()
