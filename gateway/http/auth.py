"""The key of a request: which header carries it, and what it opens."""

from __future__ import annotations

from gateway.errors import Forbidden, Unauthorized
from gateway.keys.caller import Caller, Role
from gateway.keys.ring import Ring


def authenticate(ring: Ring, authorization: str | None, api_key: str | None = None) -> Caller:
    """Whose request it is. Raises `Unauthorized` unless a header carries an accepted key.

    `Authorization: Bearer`, or `x-api-key`.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        key = api_key or ""
    try:
        return ring.find(key.strip())
    except Unauthorized:
        if authorization or api_key:
            raise
        raise Unauthorized(
            "You didn't provide an API key. Send it in an Authorization header: `Authorization: Bearer YOUR_KEY`."
        ) from None


def require(caller: Caller, role: Role) -> None:
    """Raises `Forbidden` where the key's role is not enough."""
    if role == "admin" and caller.role != "admin":
        raise Forbidden("This needs a key with the role `admin`.")
