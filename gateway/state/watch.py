"""Watches whether the state store answers, so that readiness can say so before a request finds out. Above is governance."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.state.store import Store, StoreError

STATE_STORE: Final = "twinspan.state_store"
"""What health calls the store."""

_LOOK_SECONDS: Final = 1.0


class StoreWatch:
    """Asks a store that others share every second whether it is there; a store of this process always is."""

    def __init__(self, store: Store, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Watches nothing yet.

        Args:
            store: The store.
            tell: Is told whether it answers, first at start and then when that changes.
        """
        self._store = store
        self._tell = tell
        self._answers: bool | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks once, and then again and again."""
        await self._look()
        if self._store.shared:
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Looks no more. It may be called without a start."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            await self._store.ping()
        except StoreError:
            answers = False
        else:
            answers = True
        if answers is not self._answers:
            self._answers = answers
            await self._tell(answers)
