"""Stand-ins for what tests must control: a model server that records, and a classifier that goes by marker words."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from classifiers.labels import LABELS
from classifiers.triage import Judgement

# Marker word in a text: label, category, score, toxicity.
MARKERS: Mapping[str, tuple[str, str, float, float]] = {
    "MARK-HARM": ("harmful", "harmful.fraud", 0.95, 0.0),
    "MARK-UNSURE": ("harmful", "harmful.fraud", 0.5, 0.0),
    "MARK-ADVICE": ("regulated_advice", "regulated_advice.investment", 0.9, 0.0),
    "MARK-INJECT": ("prompt_injection", "prompt_injection.override", 0.95, 0.0),
    "MARK-TOXIC": ("benign", "benign", 0.9, 0.99),
}


class Words:
    """A classifier whose verdict is in the text: see `MARKERS`. `MARK-CRASH` raises, `MARK-SLOW` takes a second."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, texts: list[str]) -> list[Judgement]:
        self.texts += texts
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Judgement:
        if "MARK-CRASH" in text:
            raise RuntimeError("the classifier broke")
        if "MARK-SLOW" in text:
            threading.Event().wait(3)
        for marker, (label, category, score, toxicity) in MARKERS.items():
            if marker in text:
                rest = (1 - score) / (len(LABELS) - 1)
                scores = {name: score if name == label else rest for name in LABELS}
                return Judgement(label, category, scores, toxicity, tier="words")
        scores = {name: 0.99 if name == "benign" else 0.002 for name in LABELS}
        return Judgement("benign", "benign", scores, 0.0, tier="words")


def completion(content: str | None = "An index fund follows an index.", **fields: Any) -> dict[str, Any]:
    """A chat completion as a model server would answer it."""
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "up-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        **fields,
    }


def chunk(delta: dict[str, Any] | None, finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """One chunk of a streamed reply; `delta` None: no choices."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish}]
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up-model",
        "choices": choices,
        **fields,
    }


def spoken(*pieces: str) -> list[dict[str, Any]]:
    """The chunks of a reply that says these pieces."""
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({}, "stop"),
    ]


@dataclass
class Recorder:
    """An ASGI model server. Set `reply`, `chunks`, `status`, `headers`, `die_after`, `delay_seconds`, then look at
    `bodies` and `requests`."""

    url: str = ""
    reply: Any = field(default_factory=completion)
    raw_reply: bytes | None = None
    chunks: list[dict[str, Any]] = field(default_factory=lambda: spoken("An index fund ", "follows an index."))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    die_after: int | None = None
    delay_seconds: float = 0.0
    chunk_seconds: float = 0.0
    bodies: list[bytes] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    sent_chunks: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            await self._send_json(send, 200, {"object": "list", "data": [{"id": "up-model", "object": "model"}]})
            return
        self.bodies.append(body)
        self.requests.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.status != 200:
            await self._send_json(send, self.status, self.reply)
        elif json.loads(body).get("stream"):
            await self._send_stream(receive, send)
        elif self.raw_reply is not None:
            await self._send(send, 200, self.raw_reply)
        else:
            await self._send_json(send, 200, self.reply)

    async def _send_stream(self, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            for number, body in enumerate(self.chunks):
                if self.die_after == number:
                    raise RuntimeError("the model server dies mid-stream")
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
                self.sent_chunks = number + 1
                if self.chunk_seconds:
                    await asyncio.wait([watcher], timeout=self.chunk_seconds)
                if self.gone.is_set():
                    return
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        finally:
            watcher.cancel()

    async def _watch(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def _send_json(self, send: Any, status: int, body: Any) -> None:
        await self._send(send, status, body if isinstance(body, bytes) else json.dumps(body).encode())

    async def _send(self, send: Any, status: int, body: bytes) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
