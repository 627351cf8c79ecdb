"""How the key store speaks to a database: one set of transactions, whatever the database.

A transaction is a generator that yields statements and is sent their rows. A driver runs it, as a whole or not at all. So what is
read and decided in it stands once, in `gateway.keystore.transactions`, for SQLite, which blocks, and PostgreSQL, which does not.
Statements are what both understand, with `$1` for the first value.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Statement: TypeAlias = tuple[str, tuple[Any, ...]]
Transaction: TypeAlias = Generator[Statement, Rows, T]


class KeyStoreError(Exception):
    """The store cannot be read or changed. The message is for the operator and holds no secret.

    Attributes:
        lasting: Whether it stays so until somebody does something about it.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Driver(Protocol):
    """Runs transactions. Both kinds raise `KeyStoreError`, and what the transaction itself raises."""

    async def read(self, transaction: Transaction[T]) -> T:
        """Runs a transaction that changes nothing and sees the store as it was at one time."""

    async def write(self, transaction: Transaction[T]) -> T:
        """Runs a transaction that begins with the change of a row that all others begin with, too."""

    async def close(self) -> None:
        """Frees what it holds. Idempotent."""
