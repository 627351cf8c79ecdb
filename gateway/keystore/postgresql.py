"""The key store in a PostgreSQL database, for gateways on any number of machines.

There is one connection, which is made when it is needed and made anew after a fault. The client's library is an extra, and imported
when the store is opened.
"""

import asyncio
from typing import Any, Final, TypeVar

from gateway.config.problems import ConfigError
from gateway.errors import GatewayError
from gateway.keystore.driver import KeyStoreError, Transaction
from gateway.keystore.transactions import SCHEMA

T = TypeVar("T")

_TIMEOUT_SECONDS: Final = 5.0
_SCHEMA_LOCK: Final = 0x7477_696E_7370_616E
"""The advisory lock under which the tables are made: "twinspan" in ASCII."""
_HINT: Final = "keys.url: names a PostgreSQL database, whose client is not installed: pip install 'twinspan[postgresql]'"


class PostgresqlDriver:
    """Runs transactions in a database. See `gateway.keystore.driver.Driver`."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Makes a driver; nothing is connected yet.

        Args:
            url: Where the database is: `postgresql://`, with user, password, host, port, name and `sslmode`.
            timeout_seconds: How long a transaction may take, to connect included.

        Raises:
            ConfigError: The client's library is not installed.
        """
        try:
            import asyncpg  # noqa: PLC0415 (see above)
        except ImportError as error:
            raise ConfigError([_HINT]) from error
        self._client: Any = asyncpg
        self._url = url
        self._timeout = timeout_seconds
        self._lock = asyncio.Lock()
        self._connection: Any = None
        self._faults: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
        self._lasting: tuple[type[Exception], ...] = (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            asyncpg.InsufficientPrivilegeError,
            asyncpg.ClientConfigurationError,
        )

    async def read(self, transaction: Transaction[T]) -> T:
        """See `Driver.read`."""
        return await self._transact(transaction, isolation="repeatable_read", readonly=True)

    async def write(self, transaction: Transaction[T]) -> T:
        """See `Driver.write`. What is read after the row that all change is what the last one left."""
        return await self._transact(transaction, isolation="read_committed")

    async def close(self) -> None:
        """See `Driver.close`."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    await connection.close(timeout=self._timeout)
                except self._faults:
                    connection.terminate()

    async def _transact(self, transaction: Transaction[T], **kind: Any) -> T:
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._connected()
                    async with connection.transaction(**kind):
                        return await _run(transaction, connection)
            except GatewayError:
                raise  # the transaction's own, which is rolled back
            except self._faults as error:
                self._drop()
                reason = str(error) or type(error).__name__
                lasting = isinstance(error, self._lasting)
                raise KeyStoreError(f"The keys in PostgreSQL cannot be used: {reason}.", lasting=lasting) from error
            except BaseException:
                self._drop()  # nobody knows where in the conversation it broke off
                raise

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            # Without a cache of statements, so that a pooler may stand between.
            connection = self._connection = await self._client.connect(self._url, timeout=self._timeout, statement_cache_size=0)
            if await connection.fetchval("SELECT to_regclass('twinspan_audit_events') IS NULL"):
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                    await connection.execute(SCHEMA)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


async def _run(transaction: Transaction[T], connection: Any) -> T:
    rows: Any = None
    try:
        while True:
            statement, values = transaction.send(rows)
            rows = await connection.fetch(statement, *values)
    except StopIteration as end:
        result: T = end.value
        return result
