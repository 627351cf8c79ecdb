"""The periods of budgets, in UTC: a budget is whole again when its next period begins. Pure: the time is passed in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_DAY: Final = timedelta(days=1)
_DAY_SECONDS: Final = 86_400
_SLACK_SECONDS: Final = 86_400.0
"""Requests that began in a period may end after it."""

_FOREVER_SECONDS: Final = 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Period:
    """One period of a budget.

    Attributes:
        name: What tells it apart from others of the budget, such as `2026-11`.
        ends_at: When the next begins, in seconds since 1970; None for never.
    """

    name: str
    ends_at: float | None

    def keep_seconds(self, now: float) -> float:
        """Returns how long what was spent in it is of interest."""
        return _FOREVER_SECONDS if self.ends_at is None else self.ends_at - now + _SLACK_SECONDS

    def wait_seconds(self, now: float) -> float:
        """Returns when the budget is whole again; 0 for never."""
        return 0.0 if self.ends_at is None else max(0.0, self.ends_at - now)


def period_of(kind: str, now: float) -> Period:
    """Returns the period in which a time is.

    Args:
        kind: `day`, `week` (from Monday), `month`, or `total` for all time.
        now: The time, in seconds since 1970.
    """
    return _period_of_day(kind, int(now // _DAY_SECONDS))


@lru_cache(maxsize=64)
def _period_of_day(kind: str, number: int) -> Period:
    """Returns the period in which a day is, by its number since 1970: since each begins at a midnight."""
    day = datetime.fromtimestamp(number * _DAY_SECONDS, UTC)
    match kind:
        case "day":
            return Period(f"{day:%Y-%m-%d}", (day + _DAY).timestamp())
        case "week":
            monday = day - day.weekday() * _DAY
            return Period(f"{monday:%G-W%V}", (monday + 7 * _DAY).timestamp())
        case "month":
            first = day.replace(day=1)
            return Period(f"{first:%Y-%m}", (first + 32 * _DAY).replace(day=1).timestamp())
        case _:
            return Period("total", None)
