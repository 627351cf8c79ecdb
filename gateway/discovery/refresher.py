"""Does something from time to time, in a task of its own: here, to ask the providers for their models."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


class Refresher:
    """Refreshes something from time to time."""

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Makes one that is at rest.

        Args:
            refresh: Refreshes it; if that fails, the next time comes all the same.
        """
        self._refresh = refresh
        self._task: asyncio.Task[None] | None = None

    async def every(self, seconds: float) -> None:
        """Refreshes it so often from now on, in place of how often it was before."""
        await self.stop()
        self._task = asyncio.create_task(self._run(seconds))

    async def stop(self) -> None:
        """Rests."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._refresh()
            except Exception:  # noqa: BLE001 (the next round may work)
                _log.exception("What was known of the providers' models could not be refreshed; it goes on.")
