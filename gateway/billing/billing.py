"""What is left at each provider: by what it says itself, and by what was spent. It tells who is exhausted, and until when.

Above is `gateway.availability`, which persists what `snapshot` gives. No I/O; the time is passed in.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.billing.reading import Reading, UnreadableError, read
from gateway.billing.terms import Terms
from gateway.providers.provider import Provider
from gateway.routing.target import Target
from gateway.telemetry.conditions import BillingCondition

CREDIT_SECONDS = 3600.0
"""When to come again where a credit is spent: nobody knows when there is more."""

_LATE = 2.0
"""How many intervals an answer holds that is asked for regularly, so that one that comes late leaves no gap."""


@dataclass(frozen=True, slots=True)
class Spent:
    """That nothing is left.

    Attributes:
        of: What is used up: `quota` or `credit`.
        seconds: When it may be asked again.
    """

    of: str
    seconds: float


@dataclass(slots=True)
class _Said:
    """What a provider has said, and until when that holds."""

    reading: Reading
    until: float


class Billing:
    """Knows how all providers stand whose billing is configured."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Makes one that knows nothing yet.

        Args:
            changed: Is told that what outlives the process has changed.
        """
        self._changed = changed
        self._terms: dict[str, Terms] = {}
        self._said: dict[str, _Said] = {}
        self._spent: dict[str, float] = {}

    def adopt(self, providers: Iterable[Provider]) -> None:
        """Goes over to these providers. What was spent stays, and so does what was said if it is said in the same place."""
        before = self._terms
        self._terms = {provider.name: provider.billing for provider in providers if provider.billing is not None}
        for name in [*self._said]:
            terms, old = self._terms.get(name), before.get(name)
            if terms is None or (old is not None and old.quota != terms.quota):
                del self._said[name]
        self._spent = {name: self._spent.get(name, 0.0) for name in self._terms}

    def spent(self, target: Target, now: float) -> Spent | None:
        """Tells that nothing is left for a target; None if something is, or nobody knows."""
        terms = target.provider.billing
        if terms is None or terms.is_free(target.model):
            return None
        return self._exhausted(target.provider.name, terms, now)

    def ended(self, target: Target, headers: Mapping[str, str] | None, cost_usd: float | None, now: float, wall: float) -> None:
        """Notes what a request came to.

        Args:
            target: Who was asked.
            headers: The headers of the answer; None if there was none.
            cost_usd: What it cost; None if that is not known.
            now: The time.
            wall: Seconds since 1970.
        """
        terms = target.provider.billing
        name = target.provider.name
        if terms is None or name not in self._terms:
            return
        if cost_usd:
            self._spent[name] = self._spent.get(name, 0.0) + cost_usd
            self._changed()
        quota = terms.quota
        if quota is None or quota.source != "headers" or headers is None:
            return
        try:
            reading = read(quota, headers, b"", wall)
        except UnreadableError:
            return  # many answers, such as errors, say nothing
        self.said(name, reading, now, quota.interval_seconds)

    def said(self, provider: str, reading: Reading, now: float, holds_seconds: float) -> None:
        """Notes what a provider says is left.

        Args:
            provider: Its name.
            reading: What it says.
            now: The time.
            holds_seconds: How long that holds if it does not say when there is more.
        """
        if provider not in self._terms:
            return
        before = self._said.get(provider)
        wait = holds_seconds if reading.reset_seconds is None else reading.reset_seconds
        self._said[provider] = _Said(reading, now + wait)
        if before is None or self._is_low(provider, before.reading) or self._is_low(provider, reading):
            self._changed()  # that there is something left is not worth a write for each answer

    def asked(self, provider: str, reading: Reading, now: float, interval_seconds: float) -> None:
        """Notes what a provider says that is asked regularly."""
        self.said(provider, reading, now, interval_seconds * _LATE)

    def states(self, now: float) -> list[BillingCondition]:
        """Returns how each provider stands, in alphabetical order. It may be called in a thread."""
        states: list[BillingCondition] = []
        for name, terms in sorted(dict(self._terms).items()):
            said, spent = self._said.get(name), self._exhausted(name, terms, now)
            reading = said.reading if said is not None else None
            states.append(
                BillingCondition(
                    provider=name,
                    model=terms.model,
                    spent_usd=self._spent.get(name, 0.0),
                    credit_usd=terms.credit_usd,
                    remaining=reading.remaining if reading is not None and math.isfinite(reading.remaining) else None,
                    limit=reading.limit if reading is not None else None,
                    exhausted=spent is not None,
                    remaining_seconds=spent.seconds if spent is not None else 0.0,
                )
            )
        return states

    def snapshot(self, ahead_seconds: float) -> Mapping[str, Any]:
        """Returns what outlives the process, as JSON can hold it; the argument is that of `Accounts.snapshot`."""
        return {
            name: {
                "spent_usd": self._spent.get(name, 0.0),
                **(
                    {"remaining": said.reading.remaining, "limit": said.reading.limit, "until": said.until + ahead_seconds}
                    if (said := self._said.get(name)) is not None and math.isfinite(said.reading.remaining)
                    else {}
                ),
            }
            for name in self._terms
        }

    def restore(self, snapshot: Any, ahead_seconds: float) -> None:
        """Puts back what `snapshot` has given to an earlier process. What does not fit is left out."""
        for name, terms in self._terms.items():
            kept = snapshot.get(name) if isinstance(snapshot, dict) else None
            match kept:
                case {"spent_usd": int() | float() as spent} if spent >= 0:
                    self._spent[name] = float(spent)
            match kept:
                case {
                    "remaining": int() | float() as remaining,
                    "limit": int() | float() | None as limit,
                    "until": int() | float() as until,
                }:
                    if terms.quota is not None:
                        self._said[name] = _Said(Reading(remaining, limit), until - ahead_seconds)

    def _exhausted(self, name: str, terms: Terms, now: float) -> Spent | None:
        if terms.credit_usd is not None and terms.credit_usd - self._spent.get(name, 0.0) <= terms.exhausted_below:
            return Spent("credit", CREDIT_SECONDS)
        said = self._said.get(name)
        if said is None or now >= said.until or said.reading.remaining > terms.exhausted_below:
            return None
        return Spent("quota", said.until - now)

    def _is_low(self, name: str, reading: Reading) -> bool:
        return reading.remaining <= self._terms[name].exhausted_below
