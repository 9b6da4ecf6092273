"""What every model behind the gateway offers, remote or in process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from gateway.call import Call, Chunk, Completion


class Upstream(Protocol):
    """A model. Failures are raised as `gateway.errors.UpstreamError`, requests it cannot take as `ClientError`."""

    async def start(self) -> None:
        """Load or connect; called once, before the first request."""

    async def close(self) -> None:
        """Let go of everything; called once."""

    async def ready(self) -> bool:
        """Whether a request could be served now."""

    async def models(self) -> Mapping[str, Any]:
        """OpenAI's list: `{"object": "list", "data": [{"id", "object": "model", "created", "owned_by"}]}`."""

    async def complete(self, call: Call) -> Completion:
        """The whole reply. Cancelling the call cancels the generation."""

    def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """The reply in chunks, without the closing `[DONE]`. Closing the generator cancels the generation."""
