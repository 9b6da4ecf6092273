"""What every model behind the gateway offers, remote or in process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from gateway.chat import Chat, Chunk, Completion


class Upstream(Protocol):
    """A model. Failures are raised as `gateway.errors.UpstreamError`, requests it cannot take as `ClientError`."""

    async def start(self) -> None:
        """Load or connect; called once, before the first request."""

    async def close(self) -> None:
        """Let go of everything; called once."""

    async def ready(self) -> bool:
        """Whether a request could be served now."""

    async def models(self) -> list[Mapping[str, Any]]:
        """OpenAI model objects: `{"id", "object": "model", "created", "owned_by"}`."""

    async def complete(self, chat: Chat) -> Completion:
        """The whole reply. Cancelling the call cancels the generation."""

    def stream(self, chat: Chat) -> AsyncGenerator[Chunk, None]:
        """The reply in chunks, without the closing `[DONE]`. Closing the generator cancels the generation."""
