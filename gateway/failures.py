"""The classes of failed attempts: whether another try may help, and whether the target is to blame.

One table says it for every kind of error, and the tests hold it whole.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import KIND_NAMES, GatewayError


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


def outcome_of(fault: BaseException | None) -> str | None:
    """Returns how something ended, as metrics call it: an error's kind, `cancelled`, or None if nothing was wrong."""
    if fault is None:
        return None
    if isinstance(fault, GatewayError):
        return fault.kind_name
    return "cancelled" if isinstance(fault, asyncio.CancelledError | GeneratorExit) else "internal_error"
