"""The bill: what one request has cost, attempt by attempt.

Above is the exchange, which adds each attempt as it ends; its target says what it cost. Attempts that failed are on the bill too,
with what their provider said they consumed. Pure.
"""

_DECIMALS = 12
"""Enough for one token at a thousandth of a dollar a million, and too few to show how floats round."""


class Bill:
    """What one request has cost so far."""

    __slots__ = ("_complete", "_known", "_usd")

    def __init__(self) -> None:
        self._usd = 0.0
        self._known = False
        self._complete = True

    def with_one_more(self, cost_usd: float | None) -> float | None:
        """Returns what will be owed, in US dollars, if the attempt under way costs this; None if that is not known."""
        return None if cost_usd is None or not self._complete else self._usd + cost_usd

    @property
    def usd(self) -> float | None:
        """What is known to be owed, in US dollars; None if nothing is known, or if something was consumed whose price is not."""
        return self._usd if self._known and self._complete else None

    @property
    def known_usd(self) -> float:
        """What is known to be owed, in US dollars, whatever else was consumed: what a budget is charged."""
        return self._usd

    def add(self, cost_usd: float | None, *, consumed: bool) -> None:
        """Adds an attempt.

        Args:
            cost_usd: What it cost, in US dollars; None if that is not known.
            consumed: Whether it is known to have consumed something.
        """
        if cost_usd is not None:
            self._usd += cost_usd
            self._known = True
        elif consumed:
            self._complete = False


def decimal_text(usd: float) -> str:
    """Returns an amount as a plain decimal, without an exponent and without zeros at its end."""
    return f"{usd:.{_DECIMALS}f}".rstrip("0").rstrip(".")
