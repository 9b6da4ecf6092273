"""Stand-ins for what tests must control: model servers that record, and a classifier that goes by marker words."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from classifiers.labels import LABELS
from classifiers.message import Judgement, Message

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

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        self.texts += [message.text for message in messages]
        return [self._one(message.text) for message in messages]

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
    `bodies`, `requests` and `ports` (the client's, one per connection)."""

    url: str = ""
    reply: Any = field(default_factory=completion)
    raw_reply: bytes | None = None
    chunks: list[dict[str, Any]] = field(default_factory=lambda: spoken("An index fund ", "follows an index."))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    die_after: int | None = None
    delay_seconds: float = 0.0
    chunk_seconds: float = 0.0
    by_path: dict[str, tuple[Any, list[dict[str, Any]]]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    sent_chunks: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        """As new, at the same address."""
        vars(self).update(vars(Recorder(self.url)))

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
        if scope["path"] in self.by_path:
            self.reply, self.chunks = self.by_path[scope["path"]]
        self.bodies.append(body)
        self.requests.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.ports.append(scope["client"][1])
        if self.delay_seconds:
            watcher = asyncio.ensure_future(self._watch(receive))
            await asyncio.wait([watcher], timeout=self.delay_seconds)
            watcher.cancel()
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
                await send({"type": "http.response.body", "body": self.frame(body), "more_body": True})
                self.sent_chunks = number + 1
                if self.chunk_seconds:
                    await asyncio.wait([watcher], timeout=self.chunk_seconds)
                if watcher.done():  # this request's client; `gone` may yet be set by the one before
                    return
            await send({"type": "http.response.body", "body": self.end(), "more_body": False})
        finally:
            watcher.cancel()

    def frame(self, body: Any) -> bytes:
        """A chunk as it is sent; the events of a response have their type for a name."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        name = f"event: {body['type']}\n".encode() if isinstance(body, dict) and "type" in body else b""
        return name + b"data: " + data + b"\n\n"

    def end(self) -> bytes:
        named = bool(self.chunks) and isinstance(self.chunks[-1], dict) and "type" in self.chunks[-1]
        return b"" if named else b"data: [DONE]\n\n"

    def wire(self) -> bytes:
        """All of the stream."""
        return b"".join(map(self.frame, self.chunks)) + self.end()

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


class Wire:
    """A model server that speaks raw bytes: to each request the next of `replies` (the last of them for ever), then it
    hangs up. A reply of None is no answer at all. Look at `requests`."""

    def __init__(self, *replies: bytes | None) -> None:
        self.say(*replies)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def say(self, *replies: bytes | None) -> None:
        """From now on these, from the first."""
        self.replies = replies
        self.requests: list[bytes] = []

    def stop(self) -> None:
        self._stopped.set()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            head, _, body = self._read(connection, b"", lambda data: b"\r\n\r\n" in data).partition(b"\r\n\r\n")
            lengths = [
                line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            length = int(lengths[0]) if lengths else 0
            self._read(connection, body, lambda data: len(data) >= length)
            self.requests.append(head)
            reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
            if reply is None:
                self._stopped.wait(30)
            else:
                connection.sendall(reply)

    def _read(self, connection: socket.socket, data: bytes, enough: Callable[[bytes], bool]) -> bytes:
        while not enough(data):
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
        return data


def http(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    """A reply for `Wire`; `headers` with underscores for hyphens. A length of its own may be given."""
    lines = [f"HTTP/1.1 {status} Status", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "content_length" not in headers and "transfer_encoding" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


def samples(text: str) -> dict[str, float]:
    """What /metrics said: value by name with its labels, as exposed."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The condition's value as soon as it is true; fails when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value
