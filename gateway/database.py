"""A SQLite database in a thread of its own, for what must outlive the process.

Above it: the stores of files and of batches, which hand it functions to run. Below it: the standard library's `sqlite3`, with a
write-ahead log that is synced to disk before a change counts. What waits while a change is synced is made in one transaction, so
that many small changes cost few syncs. It knows no tables.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_MOST_AT_ONCE = 256
"""How many functions share a transaction at most."""

_BUSY_SECONDS = 20.0
"""How long a transaction waits for those of other processes."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    run: Callable[[sqlite3.Connection], T]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[T]"


class Database:
    """One database. It is used from one event loop, and closed by whoever opened it."""

    def __init__(self, path: Path, schema: str) -> None:
        """Opens the database, and makes it if it is not there. This blocks, so call it in a thread.

        Args:
            path: Where it is.
            schema: Statements that make its tables unless they exist.

        Raises:
            sqlite3.Error: It cannot be opened.
        """
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(schema)
        except BaseException:
            self._connection.close()
            raise
        self._work: queue.SimpleQueue[_Work[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"database {path.name}", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a function on the database and returns its result, once what it changed is on disk.

        The function sees all that ran before it. If it raises, nothing of what it changed stays. A caller that is cancelled while
        it waits does not know whether its function ran.

        Raises:
            sqlite3.Error: The database failed, or the disk.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._work.put(_Work(work, loop, done))
        return await done

    async def close(self) -> None:
        """Closes the database, after what has been handed to it is done. Idempotent."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        try:
            while (first := self._work.get()) is not None:
                batch, go_on = [first], True
                while len(batch) < _MOST_AT_ONCE and not self._work.empty():
                    following = self._work.get()
                    if following is None:
                        go_on = False
                        break
                    batch.append(following)
                self._transact(batch)
                if not go_on:
                    return
        finally:
            self._connection.close()

    def _transact(self, batch: list[_Work[Any]]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for work in batch:
                outcomes.append(self._attempt(work))
            self._connection.execute("COMMIT")
        except sqlite3.Error as fault:
            with contextlib.suppress(sqlite3.Error):  # what cannot be rolled back now is when the next transaction begins
                self._connection.rollback()
            outcomes = [(None, fault)] * len(batch)
        for work, (result, error) in zip(batch, outcomes, strict=True):
            try:
                work.loop.call_soon_threadsafe(_settle, work.done, result, error)
            except RuntimeError:  # the loop is closed, so nobody waits
                continue

    def _attempt(self, work: _Work[Any]) -> tuple[Any, BaseException | None]:
        """Runs one function within the transaction, and undoes it alone if it fails."""
        self._connection.execute("SAVEPOINT work")
        try:
            result = work.run(self._connection)
        except Exception as error:
            if self._connection.in_transaction:  # the disk's faults end the whole transaction
                self._connection.execute("ROLLBACK TO work")
                self._connection.execute("RELEASE work")
            elif isinstance(error, sqlite3.Error):
                raise
            else:
                raise sqlite3.OperationalError("The function has ended its own transaction.") from error
            return None, error
        self._connection.execute("RELEASE work")
        return result, None


def _settle(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
