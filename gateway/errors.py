"""What can go wrong, as one tree. `gateway.http.errors` turns each leaf into an HTTP reply.

GatewayError
  ClientError            the request is at fault
    BadRequest           malformed or invalid
    TooLarge             over a budget
    Unauthorized         no valid client key
    Forbidden            the key's role is not enough
    RateLimited          the key has used up what it may
    ModelNotFound        no such model here
    NotServed            an endpoint that the model behind us does not have
    RecordNotFound       no record of such a request
  RailFailed             a rail raised or timed out, and its fail mode is closed
  AuditFailed            no record can be kept, and no reply may go out without one
  LimitsFailed           limits cannot be counted, and no request may pass uncounted
  Draining               the gateway is shutting down or not ready
  UpstreamError          the model behind us is at fault
    UpstreamUnavailable  connection refused, reset, breaker open
    UpstreamTimeout      no answer in time
    UpstreamRejected     it answered with an error status, or with an error in a stream
    UpstreamBroken       it died mid-reply or answered with something that is no completion
ConfigError              the configuration or a policy is wrong (never reaches a client)

A block is not an error: see `gateway.guard.verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# 200: an error in a stream, which had begun well, with a name that is none of the server's own faults.
_PASSED_ON = frozenset({200, 400, 404, 409, 413, 415, 422, 429})


class GatewayError(Exception):
    """Base of everything that becomes an HTTP error. `message` is safe to show to a client."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class ClientError(GatewayError):
    """The request is at fault."""


class BadRequest(ClientError):
    """Malformed or invalid."""


class TooLarge(ClientError):
    """Over a budget: bytes, messages or characters."""


class Unauthorized(ClientError):
    """No valid client key."""


class Forbidden(ClientError):
    """The key is good, but not for this."""


class RateLimited(ClientError):
    """The key has used up what it may of `limit` (requests, tokens, concurrent); None: waiting will not help."""

    def __init__(self, message: str, limit: str = "requests", wait_seconds: float | None = 1) -> None:
        super().__init__(message)
        self.limit = limit
        self.wait_seconds = wait_seconds


class ModelNotFound(ClientError):
    """No such model here, or none that the key may use: which of the two is not said."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model `{model[:100]}` does not exist here, or this key may not use it. "
            "GET /v1/models lists what it may.",
            param="model",
        )


class NotServed(ClientError):
    """An endpoint that the model behind us does not have."""


class RecordNotFound(ClientError):
    """No record of such a request."""


class RailFailed(GatewayError):
    """A rail raised or timed out, and the policy says to fail closed. `rail` names it."""

    def __init__(self, rail: str, error: str) -> None:
        super().__init__(f"The safety check `{rail}` failed ({error}), so nothing was answered.")
        self.rail = rail
        self.error = error


class AuditFailed(GatewayError):
    """No record can be kept, and the configuration says that no reply may go out without one."""

    def __init__(
        self, message: str = "No record of this request could be kept, so nothing was answered.", **more: Any
    ) -> None:
        super().__init__(message, **more)


class LimitsFailed(GatewayError):
    """Where limits are counted cannot be reached, and the configuration says that no request may pass uncounted."""

    def __init__(self, message: str = "The limits of this key could not be checked, so nothing was answered.") -> None:
        super().__init__(message)


class Draining(GatewayError):
    """Not ready: starting, or shutting down."""


class UpstreamError(GatewayError):
    """The model behind us is at fault."""


class UpstreamUnavailable(UpstreamError):
    """It could not be reached, or its circuit breaker is open, for about `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UpstreamTimeout(UpstreamError):
    """It did not answer in time."""


class UpstreamBroken(UpstreamError):
    """It died mid-reply, or answered with something that is no completion."""


class UpstreamRejected(UpstreamError):
    """It answered with an error status, or in a stream with an error.

    `status` is the upstream's, for an error in a stream what it amounts to; `error` its OpenAI error object if it sent
    one; `headers` those worth keeping (`retry-after`).
    """

    def __init__(self, status: int, error: Mapping[str, Any] | None, headers: Mapping[str, str]) -> None:
        super().__init__(f"The model server answered with status {status}.")
        self.status = status
        self.error = error
        self.headers = headers

    @property
    def passed_on(self) -> bool:
        """Whether what it says is the client's to know: what is wrong with the request, or that there are too many."""
        return self.status in _PASSED_ON


class ConfigError(Exception):
    """The configuration or a policy is wrong. `str()` names the file and the key."""
