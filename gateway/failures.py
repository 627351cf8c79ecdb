"""The classes of failed attempts: whether another try may help, and whether the target is to blame.

One table says it for every kind of error, and the tests hold it whole.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import KIND_NAMES, GatewayError
from gateway.routing.breaker import LEVEL_LIMIT, Hold


@dataclass(frozen=True, slots=True)
class FailureClass:
    """What a kind of error says of the target that gave it.

    Attributes:
        may_pass: Whether the same target may answer a moment later.
        blames_target: Whether the target, and not the request, is at fault.
    """

    may_pass: bool
    blames_target: bool


_PASSING = FailureClass(may_pass=True, blames_target=True)
_LASTING = FailureClass(may_pass=False, blames_target=True)
_OF_THE_REQUEST = FailureClass(may_pass=False, blames_target=False)

CLASSES: Mapping[ErrorKind.ValueType, FailureClass] = {
    ErrorKind.ERROR_KIND_NETWORK_ERROR: _PASSING,
    ErrorKind.ERROR_KIND_PROVIDER_ERROR: _PASSING,
    ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT: _PASSING,
    ErrorKind.ERROR_KIND_RATE_LIMITED: _PASSING,
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: _LASTING,
    ErrorKind.ERROR_KIND_AUTH_FAILED: _LASTING,
    ErrorKind.ERROR_KIND_PERMISSION_DENIED: _LASTING,
}
"""The kinds that say something of the target; all others are the request's own."""

_REFUSING = frozenset({ErrorKind.ERROR_KIND_AUTH_FAILED, ErrorKind.ERROR_KIND_PERMISSION_DENIED})
_DOUBLING: Mapping[ErrorKind.ValueType, float] = {
    ErrorKind.ERROR_KIND_RATE_LIMITED: 0.5,
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: 60.0,
}
_REFUSED_SECONDS: Final = 120.0
_CAPACITY_SECONDS: Final = 30.0
_FULL_STATUS: Final = 529
_JITTER: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 3600.0
"""What a provider asks for is not believed beyond this."""

BLAMING: frozenset[str] = frozenset(KIND_NAMES[kind] for kind, found in CLASSES.items() if found.blames_target)
"""The names of the kinds with which the target, and not the request, is at fault."""


def may_pass(error: GatewayError, retryable_status_codes: frozenset[int]) -> bool:
    """Tells whether the same target may answer if it is asked again.

    Args:
        error: Why it did not.
        retryable_status_codes: The statuses after which the configuration wants another try; they decide where there was one.
    """
    if error.upstream is not None:
        return error.upstream.status in retryable_status_codes
    return CLASSES.get(error.kind, _OF_THE_REQUEST).may_pass


def blames_target(error: GatewayError) -> bool:
    """Tells whether the target, and not the request, is at fault."""
    return CLASSES.get(error.kind, _OF_THE_REQUEST).blames_target


def hold_of(error: GatewayError, level: int, vary: Callable[[float, float], float]) -> Hold | None:
    """Returns how long a target is left alone after a failure that more of them would not tell more about; None after others.

    Args:
        error: How it failed.
        level: How often in a row it was held before, which doubles most of these times.
        vary: Returns a number between two, by chance: times differ by 5 %, so that not all targets come back at once.
    """
    if error.retry_after:
        return Hold(min(error.retry_after, _LONGEST_WAIT_SECONDS), asked=True)
    if error.kind in _REFUSING:
        seconds = _REFUSED_SECONDS
    else:
        base = _CAPACITY_SECONDS if _is_full(error) else _DOUBLING.get(error.kind)
        if base is None:
            return None
        seconds = base * 2 ** min(level, LEVEL_LIMIT)
    return Hold(seconds * (1 + vary(-_JITTER, _JITTER)))


def _is_full(error: GatewayError) -> bool:
    """Tells whether a provider has said that it has too much to do altogether, which is not this caller's doing."""
    return error.upstream is not None and error.upstream.status == _FULL_STATUS


def outcome_of(fault: BaseException | None) -> str | None:
    """Returns how something ended, as metrics call it: an error's kind, `cancelled`, or None if nothing was wrong."""
    if fault is None:
        return None
    if isinstance(fault, GatewayError):
        return fault.kind_name
    return "cancelled" if isinstance(fault, asyncio.CancelledError | GeneratorExit) else "internal_error"
