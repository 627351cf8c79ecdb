"""Reads what a provider says is left: from a JSON answer, from any text, or from headers. Pure: the time is passed in."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.config.billing import QuotaConfig

_SINCE_1970: Final = 1_000_000_000.0
"""Larger numbers are no duration but a time, in seconds since 1970."""
_MILLISECONDS: Final = 1_000_000_000_000.0
"""Larger ones still are one in milliseconds."""
_DURATION: Final = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_UNITS: Final = (86_400.0, 3600.0, 60.0, 1.0, 0.001)


class UnreadableError(Exception):
    """An answer does not say what is left; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a provider says is left.

    Attributes:
        remaining: How much; infinite if it says that there is no limit.
        limit: How much there is at most; None if it does not say.
        reset_seconds: In how many seconds there is more; None if it does not say.
    """

    remaining: float
    limit: float | None = None
    reset_seconds: float | None = None


def read(quota: QuotaConfig, headers: Mapping[str, str], body: bytes, now: float) -> Reading:
    """Returns what an answer says is left.

    Args:
        quota: Where it says so.
        headers: The answer's headers, in which case does not matter.
        body: The answer's body; not looked at for what stands in headers.
        now: Seconds since 1970.

    Raises:
        UnreadableError: It does not say.
    """
    find = _finder(quota, headers, body)
    found = find(quota.remaining or "")
    if found is _ABSENT:
        raise UnreadableError(f"there is no '{quota.remaining}' in its answer")
    remaining = math.inf if found is None else _number(found)
    if remaining is None:
        raise UnreadableError(f"'{quota.remaining}' in its answer is not a number")
    limit = find(quota.limit) if quota.limit is not None else _ABSENT
    reset = find(quota.reset) if quota.reset is not None else _ABSENT
    return Reading(remaining, _number(limit), _seconds_until(reset, now))


_ABSENT: Final = object()


def _finder(quota: QuotaConfig, headers: Mapping[str, str], body: bytes) -> "Any":
    match quota.mode:
        case "header":
            return lambda name: headers.get(name, _ABSENT)
        case "regex":
            text = body.decode("utf-8", "replace")
            return lambda pattern: found[1] if (found := re.search(pattern, text)) is not None else _ABSENT
        case "json_path":
            try:
                tree = json.loads(body)
            except (ValueError, RecursionError):
                raise UnreadableError("its answer is not JSON") from None
            return lambda path: _at(tree, path)


def _at(tree: Any, path: str) -> Any:
    """Returns what stands at a dotted path, in which the items of lists are numbers from 0."""
    for step in path.split("."):
        if isinstance(tree, dict) and step in tree:
            tree = tree[step]
        elif isinstance(tree, list) and step.isascii() and step.isdecimal() and int(step) < len(tree):
            tree = tree[int(step)]
        else:
            return _ABSENT
    return tree


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds_until(value: Any, now: float) -> float | None:
    """Returns in how many seconds something is, whichever of the usual forms it has; None if it has none of them."""
    number = _number(value)
    if number is not None:
        if number > _MILLISECONDS:
            number /= 1000.0
        return max(0.0, number - now if number > _SINCE_1970 else number)
    if not isinstance(value, str) or not value:
        return None
    parts = _DURATION.fullmatch(value)
    if parts is not None:
        return sum(float(part) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True) if part)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now)
