"""A server that speaks OpenAI's chat completions: a model's, a provider's, or a running gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from finetune.suite.subject import Ask, NoSubject, Reply

TRIES = 5
RETRIED = (408, 409, 429, 500, 502, 503, 504)
# Settings that a server may refuse, and what to send instead.
INSTEAD = {"max_tokens": "max_completion_tokens", "seed": None, "temperature": None}


class Remote:
    """`base_url` ends in /v1. `model` None: the first that the server lists. Keys are never written anywhere."""

    controls = False

    def __init__(self, base_url: str, model: str | None, key: str | None, timeout_seconds: float = 120) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._refused: set[str] = set()
        self.name = self.fingerprint = self.base_url

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        if self.model is None:
            status, body = await self._send("GET", "/models", None)
            try:
                self.model = str(body["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                await self.close()
                raise NoSubject(f"{self.base_url}: no list of models (HTTP {status}); name one with --model") from None
        self.name = f"{self.model} at {self.base_url}"
        self.fingerprint = f"{self.base_url} {self.model}"

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def reply(self, ask: Ask) -> Reply:
        while True:
            body = self._body(ask)
            status, answer = await self._send("POST", "/chat/completions", body)
            if status == 200:
                return read(answer)
            error = answer.get("error") if isinstance(answer, dict) else None
            error = error if isinstance(error, dict) else {"message": f"HTTP {status}"}
            if error.get("code") == "content_filter":
                return Reply(str(error.get("message")), blocked=True)
            refused = error.get("param")
            if refused in INSTEAD and refused in body and refused not in self._refused:
                self._refused.add(refused)
                continue
            if status in (401, 403, 404):
                raise NoSubject(f"{self.base_url}: HTTP {status}: {error.get('message')}")
            return Reply("", error=f"HTTP {status}: {error.get('message')}")

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": [dict(message) for message in ask.messages]}
        for name, value in (("temperature", ask.temperature), ("seed", ask.seed), ("max_tokens", ask.max_tokens)):
            sent = INSTEAD[name] if name in self._refused else name
            if sent is not None:
                body[sent] = value
        return body

    async def _send(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body; waits and tries again where that may help. Raises `NoSubject` when it does not."""
        assert self._session is not None, "start() comes first"
        why = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(min(8.0, 0.25 * 2**attempt))
            try:
                async with self._session.request(method, self.base_url + path, json=body) as response:
                    if response.status in RETRIED:
                        why = f"HTTP {response.status}"
                        continue
                    return response.status, await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
        raise NoSubject(f"{self.base_url}{path}: {why} ({TRIES} tries). What was answered is kept; run it again.")


def read(answer: Any) -> Reply:
    """The first choice of a completion."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
    except (KeyError, IndexError, TypeError):
        return Reply("", error="the server's reply is no chat completion")
    said, refused = message.get("content"), message.get("refusal")
    text = said if isinstance(said, str) else refused if isinstance(refused, str) else ""
    if isinstance(said, list):
        text = "".join(part.get("text", "") for part in said if isinstance(part, dict))
    return Reply(text, choice.get("finish_reason") == "content_filter", isinstance(refused, str) and bool(refused))
