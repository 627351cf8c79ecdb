"""Sharing what was spent of credits with other processes, through the state store that they share.

Once a second each process adds what it has spent, and takes over what all have spent together; so processes overspend a credit by
what they spend in that second, at most. A store that knows nothing yet is told by the first process what an earlier run had spent.
Above is governance.
"""

import asyncio
from typing import Final

from gateway.billing.billing import Billing
from gateway.state.claims import MICRO
from gateway.state.store import Store, StoreError

_EVERY_SECONDS: Final = 1.0
_KEEP_SECONDS: Final = 10 * 366 * 86_400.0


class CreditSharing:
    """Keeps the spending of one process and of all others together. Without a store that is shared it does nothing."""

    def __init__(self, store: Store, billing: Billing) -> None:
        """Shares nothing yet.

        Args:
            store: Knows what all have spent.
            billing: Knows what this process has spent.
        """
        self._store = store
        self._billing = billing
        self._seeded: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to share."""
        if self._store.shared:
            await self._share()
            self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Shares what is left, and no more. It may be called without a start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._share()

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self._share()

    async def _share(self) -> None:
        for name in self._billing.names:
            try:
                await self._share_one(name)
            except StoreError:
                return  # what was spent meanwhile is told once the store is back

    async def _share_one(self, name: str) -> None:
        key = f"credit:{name}"
        if name not in self._seeded:
            earlier = self._billing.known_usd(name)
            first = await self._store.add(f"{key}:told", 1, _KEEP_SECONDS) == 1
            if first and earlier:
                await self._store.add(key, round(earlier * MICRO), _KEEP_SECONDS)
            self._seeded.add(name)
        amount = self._billing.take_untold(name)
        try:
            total = await self._store.add(key, round(amount * MICRO), _KEEP_SECONDS)
        except StoreError:
            self._billing.put_back(name, amount)
            raise
        self._billing.take_over(name, total / MICRO)
