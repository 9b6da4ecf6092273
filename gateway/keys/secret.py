"""A key's secret: `hhh_`, the key's id, and 256 random bits. What is kept of it is its sha256.

A plain hash is right here, and a slow one is not: nobody can try 2^256 keys, however fast they are hashed, while
every request would pay for bcrypt. (Passwords are another matter: people choose them.)
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_PREFIX = "hhh"
_NO_DIGEST = hashlib.sha256(b"").digest()


def new() -> tuple[str, str]:
    """A new key's id and its secret."""
    id = secrets.token_hex(6)
    return id, f"{_PREFIX}_{id}_{secrets.token_urlsafe(32)}"


def id_of(secret: str) -> str:
    """The id that a secret begins with, which is no secret; "" where it has none."""
    parts = secret.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == _PREFIX else ""


def digest(secret: str) -> bytes:
    """`secret` as a header has it, one character per byte, or as it was made."""
    return hashlib.sha256(secret.encode("latin-1")).digest()


def same(given: bytes, kept: bytes | None) -> bool:
    """Compares digests in constant time, and takes as long where there is nothing to compare with."""
    return hmac.compare_digest(given, kept if kept is not None else _NO_DIGEST) and kept is not None
