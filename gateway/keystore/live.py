"""The keys that hold now, in memory: what a request is checked with costs no I/O.

Twice a second the store's revision is looked at, and what it says is read anew if that has risen; whoever changes the store in this
process has that done at once. While the store cannot be read, what was read last goes on to hold, and before anything was read the
keys of the configuration alone. Above are `gateway.app` and the desk; below are the driver and its transactions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.access.keys import ConfiguredKeys, KeyRing
from gateway.keystore import transactions
from gateway.keystore.driver import Driver, KeyStoreError
from gateway.keystore.records import Contents
from gateway.keystore.ring import make_ring, problems
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)

KEY_STORE = "twinspan.key_store"
"""What health calls the store."""

_LOOK_SECONDS = 0.5


class LiveKeys:
    """Holds the ring of keys, and keeps it what configuration and store say.

    Attributes:
        ring: The keys that hold now.
        configured: What the configuration says of keys.
        driver: Runs transactions on the store.
    """

    def __init__(
        self, driver: Driver, configured: ConfiguredKeys, recorder: Recorder, tell: Callable[[bool], Awaitable[None]]
    ) -> None:
        """Holds the keys of the configuration; the store is not looked at yet.

        Args:
            driver: Reads the store.
            configured: What the configuration says of keys.
            recorder: Counts failures of the store.
            tell: Is told whether the store can be read, first at start and then when that changes.
        """
        self.configured = configured
        self.driver = driver
        self.ring: KeyRing = make_ring(configured, Contents())
        self._recorder = recorder
        self._tell = tell
        self._contents = Contents()
        self._readable: bool | None = None
        self._warned: tuple[str, ...] = ()
        self._refreshing = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads the store, if it can be read, and watches it from now on."""
        await self.refresh()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Watches no more, and closes the store. It may be called without a start."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await self.driver.close()

    def configure(self, configured: ConfiguredKeys) -> None:
        """Has another configuration hold, in one step with whatever else is exchanged."""
        self.configured = configured
        self.ring = make_ring(configured, self._contents)
        self._warn()

    async def refresh(self) -> None:
        """Reads the store anew if it was changed. If it cannot be read, what was read before goes on to hold."""
        async with self._refreshing:
            try:
                if await self.driver.read(transactions.revision()) != self._contents.revision:
                    unread = await self.driver.read(transactions.contents())
                    await self._hold(await asyncio.to_thread(unread.read))
            except Exception as error:  # noqa: BLE001 (whatever is wrong with the store, the keys that hold go on to hold)
                await self._failed(error)
            else:
                await self._worked()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.refresh()

    async def _hold(self, contents: Contents) -> None:
        """Makes the ring, in a thread since there may be many keys, and again if the configuration was exchanged meanwhile."""
        configured = None
        while configured is not self.configured:
            configured = self.configured
            ring = await asyncio.to_thread(make_ring, configured, contents)
        self.ring = ring
        self._contents = contents
        self._warn()

    def _warn(self) -> None:
        warnings = problems(self.configured, self._contents)
        for warning in warnings:
            if warning not in self._warned:
                _log.warning("%s", warning)
        self._warned = warnings

    async def _failed(self, error: Exception) -> None:
        self._recorder.key_store_failed()
        if self._readable is False:
            return
        self._readable = False
        reason = str(error) if isinstance(error, KeyStoreError) else "What is in the key store cannot be understood."
        unforeseen = None if isinstance(error, KeyStoreError) else error
        held = "Those that were read last go on to hold" if self._contents.revision else "The keys of the configuration hold alone"
        _log.error("%s %s, and it is tried again twice a second.", reason, held, exc_info=unforeseen)
        await self._tell(False)

    async def _worked(self) -> None:
        if self._readable:
            return
        if self._readable is False:
            _log.warning("The key store can be read again.")
        self._readable = True
        await self._tell(True)
