"""A store that takes rates ahead of their use, so that a key that asks very often does not cost a round trip each time.

    claim of rates     met from what was taken ahead; when that is used up, a block is taken in one round trip
    settlement         goes to what is left of the block
    all else           goes to the store below, and rates with it that are claimed together with a place or a budget

Nothing is let in that was not taken from the shared bucket before. But what a process took a moment ago it may use a moment later,
when the bucket has filled again: in any minute, each process may let in as many requests more than the limit as a block holds. What
is not used within a second is given back. A block of one is no lease at all. Above is the limiter; below is a store that others
share.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from gateway.state.claims import Amount, Claim, Left, Rate, Settlement, Verdict
from gateway.state.store import Store, StoreError

_LEASE_SECONDS: Final = 1.0
"""How long what was taken ahead may be kept."""


@dataclass(slots=True)
class _Lease:
    """What is left of a block.

    Attributes:
        rate: What it is of.
        units: How much of it is left.
        until: When it is given back.
        left: What was left in the shared bucket when it was taken.
    """

    rate: Rate
    units: int
    until: float
    left: Left


class LeasingStore:
    """Takes rates ahead of their use."""

    shared = True

    def __init__(self, store: Store, block: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes a store over another one.

        Args:
            store: Keeps everything.
            block: For how many requests a rate is taken at once, at least 2.
            clock: Seconds that only rise.
        """
        self._store = store
        self._block = block
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._returning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Store.start`."""
        await self._store.start()

    async def close(self) -> None:
        """See `Store.close`: what was taken ahead is given back."""
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        await self._give_back(list(self._leases))
        await self._store.close()

    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._store.ping()

    async def claim(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.claim`: a round trip is made only for what was not taken ahead."""
        if not all(isinstance(claim, Rate) for claim in claims):
            return await self._store.claim(claims)  # which costs a round trip in any case
        left: dict[int, Left] = {}
        self._use(claims, left)
        short = next((claim.key for position, claim in enumerate(claims) if position not in left and isinstance(claim, Rate)), None)
        try:
            if short is not None:
                # One request takes the block that many wait for.
                async with self._locks.setdefault(short, asyncio.Lock()):
                    self._use(claims, left)
                    return await self._claim_rest(claims, left)
            return await self._claim_rest(claims, left)
        except BaseException:  # a caller that leaves while it waits is let in no more than one that is refused
            self._unuse(claims, left)
            raise

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store.settle`."""
        below: list[Settlement] = []
        for one in settlements:
            lease = self._leases.get(one.claim.key) if isinstance(one.claim, Rate) else None
            if lease is None or not isinstance(one.claim, Rate):
                below.append(one)
            else:
                lease.units += _cost(one.claim) - one.used
        if below:
            await self._store.settle(below)

    async def left(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.left`: what this process has taken ahead is left, too."""
        verdict = await self._store.left(claims)
        ahead = [lease.units if (lease := self._leases.get(claim.key)) is not None else 0 for claim in claims]
        left = [replace(one, left=one.left + max(0, units)) for one, units in zip(verdict.left, ahead, strict=True)]
        return replace(verdict, left=left)

    async def seed(self, claim: Amount, spent: int) -> None:
        """See `Store.seed`."""
        await self._store.seed(claim, spent)

    def settle_at_once(self, settlements: Sequence[Settlement]) -> bool:  # noqa: ARG002 (it takes a round trip)
        """See `Store.settle_at_once`."""
        return False

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        return await self._store.get(key)

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """See `Store.put`."""
        await self._store.put(key, value, seconds)

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        await self._store.delete(key)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        """See `Store.add`."""
        return await self._store.add(key, amount, seconds)

    def _use(self, claims: Sequence[Claim], left: dict[int, Left]) -> None:
        """Meets what can be met from what was taken ahead, and says what is left then."""
        now = self._clock()
        for position, claim in enumerate(claims):
            if position in left or not isinstance(claim, Rate):
                continue
            lease, cost = self._leases.get(claim.key), _cost(claim)
            if lease is not None and now < lease.until and lease.units >= cost:
                lease.units -= cost
                left[position] = replace(lease.left, left=lease.left.left + lease.units)

    def _unuse(self, claims: Sequence[Claim], met: Mapping[int, Left]) -> None:
        """Gives back what was met from leases, since the request is not let in."""
        for position in met:
            claim = claims[position]
            lease = self._leases.get(claim.key)
            if lease is not None and isinstance(claim, Rate):
                lease.units += _cost(claim)

    async def _claim_rest(self, claims: Sequence[Claim], left: dict[int, Left]) -> Verdict:
        """Claims what was not met: a block of each rate, or if that is too much, what the request itself needs."""
        rest = [position for position in range(len(claims)) if position not in left]
        if not rest:
            return Verdict([left[position] for position in range(len(claims))])
        verdict = Verdict([])
        for times in (self._block, 1):
            wanted = [self._wanted(claims[position], times) for position in rest]
            verdict = await self._store.claim(wanted)
            if verdict.refused is None:
                self._take(claims, rest, wanted, verdict, left)
                return Verdict([left[position] for position in range(len(claims))])
        self._unuse(claims, left)
        left |= dict(zip(rest, verdict.left, strict=True))
        assert verdict.refused is not None  # noqa: S101 (for the type checker)
        return Verdict([left[position] for position in range(len(claims))], rest[verdict.refused], verdict.retry_seconds)

    def _wanted(self, claim: Claim, times: int) -> Claim:
        if not isinstance(claim, Rate):
            return claim
        if times > 1:
            return replace(claim, cost=min(_cost(claim) * times, claim.limit))
        lease = self._leases.get(claim.key)
        return replace(claim, cost=_cost(claim) - (max(0, lease.units) if lease is not None else 0))

    def _take(
        self, claims: Sequence[Claim], rest: Sequence[int], wanted: Sequence[Claim], verdict: Verdict, left: dict[int, Left]
    ) -> None:
        """Keeps what was taken ahead, less what the request needs itself."""
        until = self._clock() + _LEASE_SECONDS
        for position, taken, rest_left in zip(rest, wanted, verdict.left, strict=True):
            claim = claims[position]
            left[position] = rest_left
            if isinstance(claim, Rate) and isinstance(taken, Rate):
                lease = self._leases.setdefault(claim.key, _Lease(claim, 0, until, rest_left))
                lease.units += taken.cost - _cost(claim)
                lease.until, lease.left = until, rest_left
                left[position] = replace(rest_left, left=rest_left.left + max(0, lease.units))
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        while self._leases:
            await asyncio.sleep(_LEASE_SECONDS)
            now = self._clock()
            await self._give_back([key for key, lease in self._leases.items() if lease.until <= now])
            self._locks = {key: lock for key, lock in self._locks.items() if lock.locked() or key in self._leases}

    async def _give_back(self, keys: Sequence[str]) -> None:
        leases = [self._leases.pop(key) for key in keys]
        settlements = [
            Settlement(replace(lease.rate, cost=max(0, lease.units)), max(0, -lease.units)) for lease in leases if lease.units
        ]
        try:
            if settlements:
                await self._store.settle(settlements)
        except StoreError:
            return  # it fills again by itself


def _cost(claim: Rate) -> int:
    """Returns what a claim takes: no more than there ever is."""
    return min(claim.cost, claim.limit)
