"""What was spent of budgets, on disk, for stores that forget it when their process ends.

It is written behind, all that has gathered in one transaction, twice a second: a process that is killed loses what was
settled in that time. Several processes of one gateway may share it, since each adds what it has
spent. Above is the limiter, which tells a store what was spent before it was started.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.database import Database
from gateway.state.claims import Amount
from gateway.state.store import StoreError

_log = logging.getLogger(__name__)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spending (budget TEXT PRIMARY KEY, spent INTEGER NOT NULL, keep_until REAL NOT NULL) WITHOUT ROWID;
"""
_WRITE_SECONDS: Final = 0.5
_KNOWN_LIMIT: Final = 10_000


class Spending:
    """The ledger of budgets. Amounts are millionths of a dollar."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Makes a ledger, which is opened once a budget is asked for.

        Args:
            directory: Where it is.
            clock: Seconds since 1970.
        """
        self._directory = directory
        self._clock = clock
        self._database: Database | None = None
        self._opening = asyncio.Lock()
        self._known: set[str] = set()
        self._pending: dict[str, tuple[int, float]] = {}
        self._closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def news_of(self, budget: str) -> int:
        """Returns what of a budget was spent before this process began to count it; 0 once that is known.

        Raises:
            StoreError: The ledger cannot be read.
        """
        if budget in self._known:
            return 0
        try:
            database = await self._opened()
            spent = await database.run(lambda connection: _spent(connection, budget))
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"What was spent cannot be read: {error}.") from error
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known.add(budget)
        return spent

    def recall(self) -> None:
        """Has everything told again, since the store may have been started anew."""
        self._known.clear()

    def spent(self, claim: Amount, amount: int) -> None:
        """Adds what was spent of a budget; it is written soon."""
        before, _ = self._pending.get(claim.key, (0, 0.0))
        self._pending[claim.key] = (before + amount, self._clock() + claim.keep_seconds)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_soon())

    async def close(self) -> None:
        """Writes what is left, and closes the ledger."""
        if self._writer is not None:
            self._closing.set()
            await self._writer
        await self._write()
        if self._database is not None:
            await self._database.close()
            self._database = None

    async def _write_soon(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._closing.wait()
        await self._write()

    async def _write(self) -> None:
        while self._pending:
            pending, self._pending = self._pending, {}
            try:
                database = await self._opened()
                await database.run(lambda connection, rows=pending: _add(connection, rows))  # type: ignore[misc]
            except (OSError, sqlite3.Error) as error:
                _log.error("What was spent could not be written, and will be forgotten by the next start: %s.", error)

    async def _opened(self) -> Database:
        async with self._opening:
            if self._database is None:
                self._database = await asyncio.to_thread(self._open)
                now = self._clock()
                await self._database.run(lambda connection: connection.execute("DELETE FROM spending WHERE keep_until < ?", (now,)))
            return self._database

    def _open(self) -> Database:
        self._directory.mkdir(parents=True, exist_ok=True)
        return Database(self._directory / "spending.db", _SCHEMA)


def _spent(connection: sqlite3.Connection, budget: str) -> int:
    row = connection.execute("SELECT spent FROM spending WHERE budget = ?", (budget,)).fetchone()
    return 0 if row is None else int(row["spent"])


def _add(connection: sqlite3.Connection, rows: Mapping[str, tuple[int, float]]) -> None:
    connection.executemany(
        "INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT (budget)"
        " DO UPDATE SET spent = spent + excluded.spent, keep_until = excluded.keep_until",
        [(budget, amount, keep_until) for budget, (amount, keep_until) in rows.items()],
    )
