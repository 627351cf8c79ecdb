"""What a request claims before it is served: a share of a rate, a place among those at once, an amount of a budget.

Claims are made together, all or none, and settled together once it is known what was really used. This says what they are; stores
(`gateway.state.store`) keep them. Amounts are whole numbers, so that every store counts alike: a budget's are in millionths of a
dollar. Pure.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

MINUTE_SECONDS: Final = 60
MICRO: Final = 1_000_000
"""Millionths of a dollar in one, and of a second."""


class Rate(Struct, frozen=True, gc=False):
    """So much of a rate: a bucket that is refilled evenly (GCRA), and full when nothing was taken for a period.

    A claim that is larger than the bucket is taken for as large as the bucket is, or it could never be met.

    Attributes:
        key: The bucket's name.
        limit: How much there is in a period, at least 1. The bucket holds as much.
        cost: How much is claimed, at least 0.
        period_seconds: The period.
    """

    key: str
    limit: int
    cost: int = 1
    period_seconds: int = MINUTE_SECONDS


class Place(Struct, frozen=True, gc=False):
    """A place among those that may be under way at once. It is given back when it is settled, or when its lease ends.

    Attributes:
        key: What the places are of.
        most: How many there are, at least 1.
        holder: Who takes it: an id that nobody else has.
        lease_seconds: After how long it is given back all the same, so that a process that died holds nothing.
    """

    key: str
    most: int
    holder: str
    lease_seconds: float


class Amount(Struct, frozen=True, gc=False):
    """So much of a budget. It is reserved until it is settled, or until its lease ends.

    Attributes:
        key: The budget's name, its period included.
        limit: How much there is.
        amount: How much is reserved, at least 0.
        holder: Who reserves it: an id that nobody else has.
        lease_seconds: After how long the reservation lapses.
        keep_seconds: How long the store keeps what was spent, from the last change on.
    """

    key: str
    limit: int
    amount: int
    holder: str
    lease_seconds: float
    keep_seconds: float


Claim: TypeAlias = Rate | Place | Amount


class Left(Struct, frozen=True, gc=False):
    """What is left of what was claimed.

    Attributes:
        left: How much could still be claimed now.
        full_seconds: When all of it is there again: of a rate when its bucket is full; 0 where time brings nothing back.
    """

    left: int
    full_seconds: float = 0.0


class Verdict(Struct, frozen=True):
    """What came of claims.

    Attributes:
        left: What is left of each, in the order of the claims.
        refused: The first claim that could not be met, by its place among them; None if all were, else none was.
        retry_seconds: When that claim can be met, of a rate; 0 if nobody can say.
    """

    left: Sequence[Left]
    refused: int | None = None
    retry_seconds: float = 0.0


class Settlement(Struct, frozen=True):
    """What a claim came to.

    Attributes:
        claim: The claim, which was met.
        used: How much was really used: of a rate or a budget. It may be more than was claimed; a place has none.
    """

    claim: Claim
    used: int = 0
