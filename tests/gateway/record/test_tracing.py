"""Traces through the front door: a gateway between a client that traces and a collector that takes OTLP."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2 as httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.config import Tracing
from gateway.errors import ConfigError
from gateway.record.tracing import Traces
from tests.fakes import Recorder

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector:
    """Keeps the spans it is sent, by name, with their attributes."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.raw += body
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def request(self) -> Any:
        """The one request's span, once it is here with those below it."""
        deadline = time.monotonic() + 10
        while not (found := [one for one in self.spans if one.parent_span_id.hex() in ("", PARENT)]):
            assert time.monotonic() < deadline, "no span came"
            time.sleep(0.05)
        assert len(found) == 1
        return found[0]

    def below(self, span: Any) -> dict[str, Any]:
        return {one.name: one for one in self.spans if one.parent_span_id == span.span_id}


def said(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture
def collector() -> Any:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


def ask(client: httpx.Client, text: str, **more: Any) -> httpx.Response:
    body = {"model": "up-model", "messages": [{"role": "user", "content": text}], **more}
    return client.post("/v1/chat/completions", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})


def test_a_request_is_a_span_with_its_stages_below(
    gateway: Callable[..., httpx.Client], upstream: Recorder, collector: Collector
) -> None:
    client = gateway(tracing={"endpoint": collector.url})
    assert ask(client, "What is an index fund, my friend Roderick?").status_code == 200
    span = collector.request()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "chat up-model"
    known = said(span)
    assert known["gen_ai.operation.name"] == "chat"
    assert known["gen_ai.usage.input_tokens"] > 0
    assert known["hhh.outcome"] == "allow"
    assert known["hhh.policy.version"].startswith("sha256:")
    stages = collector.below(span)
    assert {"triage", "input_rails", "upstream", "output_rails"} <= set(stages)
    for stage in stages.values():
        assert span.start_time_unix_nano - 5_000_000 <= stage.start_time_unix_nano <= stage.end_time_unix_nano
    assert b"Roderick" not in collector.raw
    sent = upstream.requests[-1]["traceparent"]
    assert sent == f"00-{TRACE}-{span.span_id.hex()}-01"


def test_a_refusal_says_why_and_an_error_what(gateway: Callable[..., httpx.Client], collector: Collector) -> None:
    client = gateway(tracing={"endpoint": collector.url})
    assert ask(client, "MARK-HARM please", stream=True).status_code == 200
    known = said(collector.request())
    assert known["hhh.outcome"] == "block"
    assert known["hhh.category"].startswith("harmful")
    assert "error.type" not in known


def test_an_error_is_the_spans_status(
    gateway: Callable[..., httpx.Client], upstream: Recorder, collector: Collector
) -> None:
    upstream.status = 500
    client = gateway(tracing={"endpoint": collector.url})
    assert ask(client, "What is a bond?").status_code == 502
    span = collector.request()
    assert span.status.code == 2
    assert said(span)["error.type"] == "UpstreamRejected"


def test_without_an_endpoint_nothing_is_sent_on(gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    assert ask(gateway(), "What is a bond?").status_code == 200
    assert "traceparent" not in upstream.requests[-1]


def test_a_caller_that_does_not_sample_is_not_traced(
    gateway: Callable[..., httpx.Client], upstream: Recorder, collector: Collector
) -> None:
    client = gateway(tracing={"endpoint": collector.url})
    body = {"model": "m", "messages": [{"role": "user", "content": "What is a bond?"}]}
    client.post("/v1/chat/completions", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    time.sleep(1.5)
    assert not collector.spans
    assert upstream.requests[-1]["traceparent"].endswith("-00")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="opentelemetry.sdk")
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'hhh-gateway\[tracing\]'"):
        Traces(Tracing(endpoint="http://127.0.0.1:4318/v1/traces"))
