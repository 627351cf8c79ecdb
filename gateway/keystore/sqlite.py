"""The key store in a SQLite file, for the gateways of one machine. The file is made by the first change.

Below it is `gateway.database`, whose thread runs each transaction from its first statement to its last.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.database import Database
from gateway.keystore.driver import KeyStoreError, Rows, Transaction
from gateway.keystore.transactions import SCHEMA

T = TypeVar("T")

_NOT_OURS = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
)


class SqliteDriver:
    """Runs transactions on a file. See `gateway.keystore.driver.Driver`."""

    def __init__(self, path: Path) -> None:
        """Makes a driver; nothing is opened or made yet."""
        self._path = path
        self._opening = asyncio.Lock()
        self._database: Database | None = None

    async def read(self, transaction: Transaction[T]) -> T:
        """See `Driver.read`. Where there is no file, there is nothing to be found."""
        if self._is_missing():
            return _run(transaction, _nothing)
        return await self._transact(transaction)

    async def write(self, transaction: Transaction[T]) -> T:
        """See `Driver.write`."""
        return await self._transact(transaction)

    async def close(self) -> None:
        """See `Driver.close`."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    def _is_missing(self) -> bool:
        try:
            return self._database is None and not self._path.exists()
        except OSError:
            return False  # the attempt to open it tells what is wrong

    async def _transact(self, transaction: Transaction[T]) -> T:
        try:
            database = await self._open()
            return await database.run(lambda db: _run(transaction, _executor(db)))
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in the upper bits
            lasting = code in _NOT_OURS or isinstance(error, OSError)
            raise KeyStoreError(f"The keys in {self._path} cannot be used: {error}.", lasting=lasting) from error

    async def _open(self) -> Database:
        async with self._opening:
            if self._database is None:
                self._database = await asyncio.to_thread(self._open_blocking)
            return self._database

    def _open_blocking(self) -> Database:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        return Database(self._path, SCHEMA)


def _executor(db: sqlite3.Connection) -> Callable[[str, tuple[Any, ...]], Rows]:
    def execute(statement: str, values: tuple[Any, ...]) -> Rows:
        return [dict(row) for row in db.execute(statement.replace("$", "?"), values).fetchall()]

    return execute


def _nothing(_statement: str, _values: tuple[Any, ...]) -> Rows:
    return ()


def _run(transaction: Transaction[T], execute: Callable[[str, tuple[Any, ...]], Rows]) -> T:
    rows: Any = None
    try:
        while True:
            rows = execute(*transaction.send(rows))
    except StopIteration as end:
        result: T = end.value
        return result
