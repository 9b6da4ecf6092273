"""Who may call: client keys, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

from gateway.errors import Unauthorized


class Keys:
    """The accepted client keys, kept as digests. With none, every request passes (and the host is loopback)."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: str | None, api_key: str | None = None) -> None:
        """Raises `Unauthorized` unless a header carries an accepted key: `Authorization: Bearer`, or `x-api-key`."""
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            key = api_key or ""
        given = _digest(key.strip().encode("latin-1"))  # as a header's bytes are read
        # Every key is compared, so that the time taken says nothing.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(matches):
            raise Unauthorized(
                "Incorrect API key provided."
                if authorization or api_key
                else "You didn't provide an API key. "
                "Send it in an Authorization header: `Authorization: Bearer YOUR_KEY`."
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
