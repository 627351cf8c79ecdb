"""The store of one process: plain dictionaries, bounded by dropping what has no effect any more.

A full bucket, a free place, a lapsed reservation and an expired value are as if they had never been, so they are swept. What is
left after a sweep is in use, and there is no more of it than there were claims in the longest period.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.state import gcra
from gateway.state.claims import MICRO, Amount, Claim, Left, Place, Rate, Settlement, Verdict
from gateway.state.leases import Leases

_SWEEP_AT = 4096
"""How many entries there are before the first sweep."""


@dataclass(slots=True)
class _Budget:
    spent: int = 0
    keep_until: float = 0.0
    reserved: Leases = field(default_factory=Leases)


class MemoryStore:
    """Keeps everything in this process."""

    shared = False

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Makes an empty store.

        Args:
            clock: Seconds, which never go back.
        """
        self._clock = clock
        self._rates: dict[str, int] = {}
        self._places: dict[str, Leases] = {}
        self._budgets: dict[str, _Budget] = {}
        self._values: dict[str, tuple[bytes, float]] = {}
        self._sweep_at = _SWEEP_AT

    async def start(self) -> None:
        """See `Store.start`."""

    async def close(self) -> None:
        """See `Store.close`."""

    async def ping(self) -> None:
        """See `Store.ping`."""

    async def claim(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.claim`."""
        now = self._clock()
        micro = _micro(now)
        left: list[Left] = []
        arrivals: list[int] = []
        # One pass for what is mostly all: that every claim can be met. Nothing is changed before that is known.
        for claim in claims:
            if isinstance(claim, Rate):
                outcome = gcra.take(self._rates.get(claim.key, 0), micro, claim)
                if outcome.wait:
                    return self._judge(claims, now)
                arrivals.append(outcome.arrival)
                left.append(Left(outcome.left, outcome.full / MICRO))
            else:
                after, _ = self._look(claim, now)
                if after is None:
                    return self._judge(claims, now)
                arrivals.append(0)
                left.append(after)
        for claim, arrival in zip(claims, arrivals, strict=True):
            if isinstance(claim, Rate):
                self._rates[claim.key] = arrival
            else:
                self._hold(claim, now)
        self._sweep(now)
        return Verdict(left)

    async def left(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.left`."""
        return self._judge(claims, self._clock())

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store.settle`."""
        self.settle_at_once(settlements)

    def settle_at_once(self, settlements: Sequence[Settlement]) -> bool:
        """See `Store.settle_at_once`."""
        now = self._clock()
        for settlement in settlements:
            claim = settlement.claim
            match claim:
                case Rate():
                    micro = _micro(now)
                    self._rates[claim.key] = gcra.give(self._rates.get(claim.key, micro), micro, claim, settlement.used)
                case Place():
                    if (places := self._places.get(claim.key)) is not None:
                        places.give_back(claim.holder)
                case Amount():
                    budget = self._budget(claim, now)
                    budget.reserved.give_back(claim.holder)
                    budget.spent += settlement.used
                    budget.keep_until = now + claim.keep_seconds
        return True

    async def seed(self, claim: Amount, spent: int) -> None:
        """See `Store.seed`."""
        budget = self._budget(claim, now := self._clock())
        if not budget.spent:
            budget.spent = spent
            budget.keep_until = max(budget.keep_until, now + claim.keep_seconds)

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        value, until = self._values.get(key, (None, 0.0))
        return value if until > self._clock() else None

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """See `Store.put`."""
        now = self._clock()
        self._values[key] = (value, now + seconds)
        self._sweep(now)

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._values.pop(key, None)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        """See `Store.add`."""
        total = int(await self.get(key) or b"0") + amount
        await self.put(key, b"%d" % total, seconds)
        return total

    def _judge(self, claims: Sequence[Claim], now: float) -> Verdict:
        """Returns what comes of claims. What is left is as after them if they are met, and as it is now if they are not."""
        left: list[Left] = []
        for number, claim in enumerate(claims):
            after, wait = self._look(claim, now)
            if after is None:
                return Verdict([self._now_left(claim, now) for claim in claims], number, wait)
            left.append(after)
        return Verdict(left)

    def _look(self, claim: Claim, now: float) -> tuple[Left | None, float]:
        """Returns what would be left; None if the claim cannot be met, and in how many seconds it can."""
        match claim:
            case Rate():
                outcome = gcra.take(self._rates.get(claim.key, 0), _micro(now), claim)
                if outcome.wait:
                    return None, outcome.wait / MICRO
                return Left(outcome.left, outcome.full / MICRO), 0.0
            case Place():
                free = claim.most - self._held(claim, now)
                return (Left(free - 1) if free > 0 else None), 0.0
            case Amount():
                rest = claim.limit - self._taken(claim, now)
                # An exhausted budget lets nothing through, not even what costs nothing.
                return (Left(rest - claim.amount) if 0 < rest >= claim.amount else None), 0.0

    def _now_left(self, claim: Claim, now: float) -> Left:
        match claim:
            case Rate():
                arrival, micro = self._rates.get(claim.key, 0), _micro(now)
                return Left(gcra.left(arrival, micro, claim), max(0, arrival - micro) / MICRO)
            case Place():
                return Left(max(0, claim.most - self._held(claim, now)))
            case Amount():
                return Left(max(0, claim.limit - self._taken(claim, now)))

    def _held(self, claim: Place, now: float) -> int:
        if (places := self._places.get(claim.key)) is None:
            return 0
        places.lapse(now)
        return len(places)

    def _taken(self, claim: Amount, now: float) -> int:
        """Returns what of a budget is spent or reserved."""
        budget = self._budgets.get(claim.key)
        if budget is None or budget.keep_until <= now:
            return 0
        budget.reserved.lapse(now)
        return budget.spent + budget.reserved.total

    def _budget(self, claim: Amount, now: float) -> _Budget:
        budget = self._budgets.get(claim.key)
        if budget is None or budget.keep_until <= now:
            budget = self._budgets[claim.key] = _Budget()
        return budget

    def _hold(self, claim: Place | Amount, now: float) -> None:
        if isinstance(claim, Place):
            places = self._places.get(claim.key)
            if places is None:
                places = self._places[claim.key] = Leases()
            places.hold(claim.holder, 1, now + claim.lease_seconds)
            return
        budget = self._budget(claim, now)
        budget.reserved.hold(claim.holder, claim.amount, now + claim.lease_seconds)
        budget.keep_until = max(budget.keep_until, now + claim.keep_seconds)

    def _sweep(self, now: float) -> None:
        """Drops what has no effect any more, each time that there is twice as much as a sweep has left."""
        if self._entries() < self._sweep_at:
            return
        micro = _micro(now)
        self._rates = {key: arrival for key, arrival in self._rates.items() if arrival > micro}
        self._values = {key: value for key, value in self._values.items() if value[1] > now}
        for places in self._places.values():
            places.lapse(now)
        self._places = {key: places for key, places in self._places.items() if len(places)}
        self._budgets = {key: budget for key, budget in self._budgets.items() if budget.keep_until > now}
        self._sweep_at = max(_SWEEP_AT, 2 * self._entries())

    def _entries(self) -> int:
        return len(self._rates) + len(self._places) + len(self._budgets) + len(self._values)


def _micro(seconds: float) -> int:
    return int(seconds * MICRO)
