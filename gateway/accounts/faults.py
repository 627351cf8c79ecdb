"""What an error says of the account through which it came, and for how long that account then rests.

Six classes: five that hold something against the account, and the request's own. Above is the pool. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

MOST_LEVEL: Final = 15
"""How often a lock doubles at most."""

JITTER: Final = 0.05
"""The share by which a lock may be shorter or longer, so that accounts do not all come back at once."""


class Fault(StrEnum):
    """What an error blames."""

    AUTH = "auth"
    """The provider does not accept the credential."""
    QUOTA = "quota"
    """What the account may use is used up."""
    RATE = "rate"
    """The account asks too fast."""
    CAPACITY = "capacity"
    """The provider has no room for the account's request now."""
    SERVER = "server"
    """The provider failed by itself."""
    OTHER = "other"
    """The request itself, or nobody."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How an account rests after a fault.

    Attributes:
        seconds: For how long, the first time.
        grows: Whether it doubles with each further fault without a success between them.
        whole: Whether it holds for all models of the account, and not only for the one that was asked.
        shared: Whether the provider's other accounts would fail alike, so that none of them is asked in its place.
    """

    seconds: float
    grows: bool = False
    whole: bool = False
    shared: bool = False


RESTS: Final[Mapping[Fault, Rest]] = {
    Fault.AUTH: Rest(120.0, whole=True),
    Fault.QUOTA: Rest(60.0, grows=True, whole=True),
    Fault.RATE: Rest(0.5, grows=True),
    Fault.CAPACITY: Rest(30.0, grows=True),
    Fault.SERVER: Rest(1.0, shared=True),
}
"""The faults that hold something against an account."""

_OF_KIND: Final[Mapping[ErrorKind.ValueType, Fault]] = {
    ErrorKind.ERROR_KIND_AUTH_FAILED: Fault.AUTH,
    ErrorKind.ERROR_KIND_PERMISSION_DENIED: Fault.AUTH,
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: Fault.QUOTA,
    ErrorKind.ERROR_KIND_RATE_LIMITED: Fault.RATE,
}
_OVERLOADED: Final = frozenset({503, 529})


def fault_of(error: GatewayError) -> Fault:
    """Returns what an error blames: by its kind, and where that leaves it open by the status that the provider answered with."""
    status = error.upstream_status
    if status in _OVERLOADED and error.kind != ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED:
        return Fault.CAPACITY
    fault = _OF_KIND.get(error.kind)
    if fault is not None:
        return fault
    return Fault.SERVER if status >= 500 else Fault.OTHER


def rest_seconds(rest: Rest, level: int, jitter: float) -> float:
    """Returns for how long an account rests.

    Args:
        rest: How it rests.
        level: How many such faults it had before, without a success since.
        jitter: From -1 to 1: how much of the jitter to add.
    """
    seconds = rest.seconds * 2 ** min(level, MOST_LEVEL) if rest.grows else rest.seconds
    return seconds * (1.0 + JITTER * jitter)
