"""Where limits are counted: in this process, or in Redis (extra `redis`), imported only where it is named."""

from __future__ import annotations

from typing import Any

from limits.aio.storage import MemoryStorage, Storage

from gateway.config import Limits
from gateway.errors import ConfigError
from gateway.quota.slots import OwnSlots, SharedSlots, Slots

_MOST_CONNECTIONS = 64


def build(settings: Limits) -> tuple[Storage, Slots]:
    """The counters and the slots; nothing is connected yet. Raises `ConfigError`."""
    if settings.storage is None:
        return MemoryStorage(), OwnSlots()
    try:
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.exceptions import RedisError
    except ModuleNotFoundError as error:
        raise ConfigError(f"limits.storage: {error.name} is not installed; pip install 'hhh-gateway[redis]'") from None
    options: dict[str, Any] = {"password": settings.password()} if settings.password_env is not None else {}
    try:
        # Who waits for a connection waits no longer than the limiter lets him.
        pool = BlockingConnectionPool.from_url(settings.storage, max_connections=_MOST_CONNECTIONS, **options)
    except (RedisError, ValueError) as error:
        raise ConfigError(f"limits.storage: {error}") from None
    shared: Any = pool  # the library's types do not know of pools
    stored = RedisStorage(
        f"async+{settings.storage}", implementation="redispy", key_prefix="hhh", connection_pool=shared
    )
    return stored, SharedSlots(Redis(connection_pool=pool), settings.slot_seconds)


async def close(stored: Storage) -> None:
    """Let go of the connections."""
    bridge = getattr(stored, "bridge", None)
    if bridge is not None:
        await bridge.get_connection().connection_pool.aclose()
