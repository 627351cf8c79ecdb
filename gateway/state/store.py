"""The store that several processes may share. `memory` serves one process, `valkey` any number; one suite holds both.

Above are limits, budgets, sessions and keys; every method is one round trip at most.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.state.claims import Amount, Claim, Settlement, Verdict


class StoreError(Exception):
    """The store cannot be reached, or failed. Whoever asked decides what that means."""


class Store(Protocol):
    """Keeps claims, and small values by key. All methods raise `StoreError`."""

    @property
    def shared(self) -> bool:
        """Whether other processes see the same."""

    async def start(self) -> None:
        """Makes ready. A store that cannot be reached now is reached later."""

    async def close(self) -> None:
        """Frees what it holds. Idempotent."""

    async def ping(self) -> None:
        """Makes sure that the store answers."""

    async def claim(self, claims: Sequence[Claim]) -> Verdict:
        """Meets all of these claims, or none of them.

        Two of them must not have one key.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Says what claims came to. A claim is settled once; what was not settled lapses with its lease, and a rate stays taken."""

    def settle_at_once(self, settlements: Sequence[Settlement]) -> bool:
        """Settles without waiting for anything, if this store can, and tells whether it did."""

    async def left(self, claims: Sequence[Claim]) -> Verdict:
        """Returns what `claim` would, and changes nothing."""

    async def seed(self, claim: Amount, spent: int) -> None:
        """Says what of a budget was spent already, unless the store knows of something that was."""

    async def get(self, key: str) -> bytes | None:
        """Returns a value; None if there is none."""

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """Keeps a value for so long."""

    async def delete(self, key: str) -> None:
        """Forgets a value; nothing happens if there is none."""

    async def add(self, key: str, amount: int, seconds: float) -> int:
        """Adds to a number that is 0 at first, keeps it for so long from now, and returns it."""
