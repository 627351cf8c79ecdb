"""Starts the embedded models that are installed, all of them with one key, and stops them.

Above is `gateway.app`, or whoever starts them for several processes that serve together; below are the engines.
"""

import asyncio
import secrets

from gateway.local.embedding_engine import EmbeddingEngine
from gateway.local.engine import Engine, EngineError, LocalEndpoint, LocalEngine


class LocalModels:
    """The embedded models of one event loop."""

    def __init__(self) -> None:
        self._engines: list[Engine] = []

    async def start(self, slots: int) -> LocalEndpoint:
        """Starts them, and returns where they answer.

        Args:
            slots: How many requests the chat model works on at a time.

        Raises:
            EngineError: One cannot run; the message says what to do.
        """
        key = secrets.token_urlsafe(24)
        chat, embedding = LocalEngine(slots=slots, api_key=key), EmbeddingEngine(api_key=key)
        self._engines = [chat, embedding] if embedding.is_installed() else [chat]
        starts = await asyncio.gather(*(engine.start() for engine in self._engines), return_exceptions=True)
        for failure in starts:
            if isinstance(failure, EngineError):
                raise EngineError(f"No provider is configured, and the embedded model cannot stand in. {failure}") from failure
            if isinstance(failure, BaseException):
                raise failure
        endpoints = [endpoint for endpoint in starts if isinstance(endpoint, LocalEndpoint)]
        return endpoints[0].joined(endpoints[1]) if len(endpoints) > 1 else endpoints[0]

    async def stop(self) -> None:
        """Stops them. It may be called at any time, and again."""
        for engine in self._engines:
            await engine.stop()
