"""Whose turn it is to run the batches, of several processes that share one directory: that of the one that holds its lock.

The others look now and then whether it is free, and the one that has it looks for what they have written down: new batches, and
those that are to be stopped. A process that ends, however it does, leaves the lock, and another one goes on where it stood. Above
is `gateway.app`; below are the store and the worker, which does not know that it has siblings.
"""

import asyncio
import contextlib
import fcntl
import os
from typing import Final

from gateway.batches.batch import Status
from gateway.batches.store import BatchStore
from gateway.batches.worker import BatchWorker
from gateway.errors import GatewayError

_LOOK_SECONDS: Final = 0.3
_AFTER_FAULT_SECONDS: Final = 5.0


class Shift:
    """Has a worker run the batches while it is this process's turn."""

    def __init__(self, store: BatchStore, worker: BatchWorker, *, look_seconds: float = _LOOK_SECONDS) -> None:
        """Makes a shift that has not begun; until it does, the worker rests.

        Args:
            store: The batches.
            worker: Runs them.
            look_seconds: How often to look for the lock, or for what others have written down.
        """
        self._store = store
        self._worker = worker
        self._look_seconds = look_seconds
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None
        worker.resting = True

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_seconds: float) -> None:
        """Lets the worker stop, and then another process have its turn. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._worker.stop(grace_seconds)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(self) -> None:
        while True:
            pause = self._look_seconds
            # Nothing is opened before there is a batch: a gateway without any leaves no trace on disk.
            if self._store.exists:
                try:
                    await self._look()
                except (GatewayError, OSError):  # the store's faults are in the log
                    pause = _AFTER_FAULT_SECONDS
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        if self._lock is None:
            self._lock = self._taken()
            if self._lock is None:
                return
            self._worker.resting = False
        for id_, status in await self._store.unfinished():
            if status == Status.CANCELLING:
                self._worker.cancel(id_)
            else:
                self._worker.run(id_)

    def _taken(self) -> int | None:
        """Returns a descriptor that holds the lock; None if another process has it."""
        descriptor = os.open(self._store.root / "runner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        os.close(descriptor)
        return None
