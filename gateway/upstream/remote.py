"""Any OpenAI-compatible server, over aiohttp. The client's body goes through as it came, the reply likewise.

Retries happen only before the first byte of a reply, and only for failures that a retry can mend. Not covered: more
than one server (put a load balancer there).
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import Gauge

from gateway import config as settings
from gateway.call import Call, Chunk, Completion
from gateway.digits import number
from gateway.errors import UpstreamBroken, UpstreamError, UpstreamRejected, UpstreamTimeout, UpstreamUnavailable
from gateway.record import tracing
from gateway.upstream.breaker import Breaker
from gateway.upstream.failure import error_of, in_stream, status_of
from gateway.upstream.sse import events

_RETRIED = frozenset({502, 503, 504})
_RETRY_HEADERS = ("retry-after", "retry-after-ms")
# What OpenAI's servers say beside a reply, and those that are like them.
_OPENAI_HEADERS = re.compile(r"x-ratelimit-[a-z0-9_-]+|openai-(processing-ms|version|organization)")
_BACKOFF_SECONDS = (0.1, 0.4, 1.0, 2.0, 4.0)
# A model's line of a stream can be long (logprobs, tool arguments); past this the reply is broken.
_MOST_LINE_BYTES = 8 * 1024 * 1024
# How long the end of a finished stream is waited for, so that its connection can be used again.
_END_SECONDS = 0.1


class Remote:
    """An `Upstream` at `base_url`."""

    def __init__(self, upstream: settings.Upstream, breaker_state: Gauge) -> None:
        self._settings = upstream
        self._key = settings.secret(upstream.api_key_env) if upstream.api_key_env else None
        self._breaker = Breaker(upstream.breaker.failures, upstream.breaker.reset_seconds, breaker_state)
        self._session: aiohttp.ClientSession | None = None
        address = urlsplit(upstream.base_url or "")
        # What no message of the upstream may carry to a client. A bare name is left: it may be any word.
        places = {place for place in (address.netloc, address.hostname) if place and set(place) & set(".:")}
        self._private = places | ({self._key} if self._key else set())

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),  # a cookie set for one client's request must not reach another's
            trust_env=False,  # no proxy from the environment: the upstream is where the configuration says
            timeout=aiohttp.ClientTimeout(
                total=self._settings.timeout.total_seconds, sock_connect=self._settings.timeout.connect_seconds
            ),
            read_bufsize=2**16,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ready(self) -> bool:
        return not self._breaker.open

    async def models(self) -> Mapping[str, Any]:
        async with self._call("GET", "/models", None) as response:
            return _parse(await self._read(response))

    async def complete(self, call: Call) -> Completion:
        async with self._call("POST", call.form.path, self._body(call)) as response:
            raw = await self._read(response)
        # Embeddings are numbers by the thousand, and never written anew.
        body = _parse(raw, number if call.form.refuses else float)
        if not call.form.well_formed(body):
            raise UpstreamBroken("The model server's reply is none of this endpoint.")
        return Completion(body, raw, self._told(response))

    async def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        form = call.form
        ended: set[int] = set()
        async with self._call("POST", form.path, self._body(call)) as response:
            done = False
            told = self._told(response)
            try:
                async with aclosing(events(response.content.iter_any(), _MOST_LINE_BYTES)) as found:
                    async for event in found:
                        if event.data == b"[DONE]":
                            done = True
                            break
                        chunk = Chunk(_parse(event.data), event.data, event.name, told)
                        error = in_stream(chunk.body)
                        if error is not None:
                            raise self._failure(error)
                        yield chunk
                        ended.update(form.ends(chunk.body))
                        if form.last(chunk.body):
                            done = True
                            break
            except (aiohttp.ClientError, ConnectionError) as error:
                raise UpstreamBroken("The model server's reply broke off.") from error
            except TimeoutError as error:
                raise UpstreamTimeout("The model server's reply took too long.") from error
            # Some servers leave out `[DONE]`: a reply whose every choice has ended is whole.
            if not done and len(ended) < call.choices:
                raise UpstreamBroken("The model server's reply broke off.")
            with suppress(aiohttp.ClientError, OSError):  # OSError: TimeoutError too
                async with asyncio.timeout(_END_SECONDS):
                    await response.content.readany()

    def _body(self, call: Call) -> bytes:
        return (call.with_model(self._settings.model) if self._settings.model else call).payload()

    @asynccontextmanager
    async def _call(self, method: str, path: str, body: bytes | None) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200, its body not yet read. Raises `UpstreamError`."""
        response = await self._first_byte(method, path, body)
        try:
            yield response
        finally:
            # Unread bytes mean that the caller stopped early: the connection is closed, which cancels the generation.
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _first_byte(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        """The breaker learns of one outcome per request, and any answer, an error too, shows a server that is alive."""
        self._breaker.admit()
        try:
            response = await self._tried(method, path, body)
        except (UpstreamTimeout, UpstreamUnavailable):
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.abandoned()  # cancelled, most often; whatever it was, a trial must not stay open
            raise
        self._breaker.succeeded()
        if response.status < 400:
            return response
        raise await self._rejection(response)

    async def _tried(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        """The last answer. A timeout is not tried again: the model may be at work, and a second copy would not help."""
        for seconds in _BACKOFF_SECONDS[: self._settings.retries]:
            with suppress(UpstreamUnavailable):
                response = await self._send(method, path, body)
                if response.status not in _RETRIED:
                    return response
                response.release()
            await asyncio.sleep(seconds)
        return await self._send(method, path, body)

    async def _send(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        assert self._session is not None, "start() first"
        headers = {**tracing.headers(), **({"content-type": "application/json"} if body is not None else {})}
        data = io.BytesIO(body) if body is not None else None  # bytes over 1 MiB would be warned about
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            async with asyncio.timeout(self._settings.timeout.first_byte_seconds):
                return await self._session.request(
                    method, f"{self._settings.base_url}{path}", data=data, headers=headers, allow_redirects=False
                )
        except aiohttp.ServerTimeoutError as error:
            raise UpstreamUnavailable("The model server could not be reached in time.") from error
        except TimeoutError as error:
            raise UpstreamTimeout("The model server did not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnavailable("The model server could not be reached.") from error

    async def _rejection(self, response: aiohttp.ClientResponse) -> UpstreamError:
        try:
            async with asyncio.timeout(self._settings.timeout.first_byte_seconds):
                body = _parse(await self._read(response))
        except (UpstreamError, TimeoutError):
            body = {}
        finally:
            response.release()
        error = error_of(body)
        kept = self._kept(response, _RETRY_HEADERS) | (self._told(response) if response.status == 429 else {})
        return UpstreamRejected(response.status, error if self._fit(error) else None, kept)

    def _failure(self, error: Mapping[str, Any]) -> UpstreamError:
        """An error in the middle of a stream: the client is told what it would have been told of a rejection."""
        found = UpstreamRejected(status_of(error), error, {})
        if found.passed_on and self._fit(error):
            return found
        return UpstreamBroken("The model server reported an error in the middle of its reply.")

    def _told(self, response: aiohttp.ClientResponse) -> dict[str, str]:
        return self._kept(
            response, [name for name in map(str.lower, response.headers) if _OPENAI_HEADERS.fullmatch(name)]
        )

    def _kept(self, response: aiohttp.ClientResponse, names: Iterable[str]) -> dict[str, str]:
        """Those of these headers that can be sent on, and give nothing away."""
        found = {name: response.headers.get(name, "") for name in names}
        return {
            name: value
            for name, value in found.items()
            if value and value.isascii() and value.isprintable() and self._fit(value)
        }

    def _fit(self, said: object) -> bool:
        """Whether what the server says has nothing in it that is not the client's to know."""
        return not any(text in str(said) for text in self._private)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except TimeoutError as error:
            raise UpstreamTimeout("The model server's reply took too long.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamBroken("The model server's reply broke off.") from error


def _parse(raw: bytes, parse_float: Callable[[str], float] = number) -> dict[str, Any]:
    try:
        body = json.loads(raw, parse_float=parse_float)
    except (ValueError, RecursionError) as error:
        raise UpstreamBroken("The model server's reply is no JSON.") from error
    if not isinstance(body, dict):
        raise UpstreamBroken("The model server's reply is no JSON object.")
    return body
