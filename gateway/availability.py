"""Who can be asked at all: what a provider's accounts say, in one place for the exchange and for what is forwarded.

    plan       leaves out the targets that cannot be asked now
    tries      asks one target through one account after the other
    ended      notes how it went

Above are the exchange and the forwarder, which call this where they choose and where they are done; below are the accounts. What is
learnt here outlives the process, in a small file.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.accounts.accounts import Accounts, AccountTarget
from gateway.accounts.faults import RESTS, Fault, fault_of
from gateway.errors import GatewayError
from gateway.routing.catalogue import Catalogue, Route, RoutingState, Target
from gateway.state_file import StateFile
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)

_SHORT_SECONDS = 2.0
"""So long a request waits for an account, if nobody else can be asked."""

_KINDS: Mapping[str, ErrorKind.ValueType] = {
    Fault.AUTH: ErrorKind.ERROR_KIND_AUTH_FAILED,
    Fault.QUOTA: ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
}
_SAYS: Mapping[str, str] = {
    Fault.AUTH: "Its provider accepts the credential of none of its accounts; whoever runs this gateway must look at them.",
    Fault.QUOTA: "What its provider's accounts may use is used up. Try again later, or another model.",
    Fault.RATE: "All of its provider's accounts have asked too fast. Try again later.",
    Fault.CAPACITY: "Its provider has no room for any of its accounts. Try again later, or another model.",
    Fault.SERVER: "Its provider has just failed. Try again in a moment, or another model.",
}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """That a target cannot be asked now.

    Attributes:
        reason: Why: what its accounts' errors blame.
        retry_after: Seconds after which it can be.
        waits: Whether a request may wait for it, if that is short.
    """

    reason: str
    retry_after: float
    waits: bool


class FailedAttempt(Protocol):
    """An attempt that failed."""

    @property
    def target(self) -> Target:
        """Who was asked."""

    @property
    def error(self) -> GatewayError:
        """Why it failed."""


class Availability:
    """Knows who can be asked."""

    def __init__(
        self,
        path: Path,
        recorder: Recorder,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        randomness: random.Random | None = None,
    ) -> None:
        """Makes one that knows nothing yet.

        Args:
            path: The file in which what is learnt outlives the process.
            recorder: Counts.
            clock: Seconds that only rise.
            wall: Seconds since 1970, for the file.
            randomness: Where the jitter of locks comes from.
        """
        self._clock = clock
        self._wall = wall
        self._file = StateFile(path, self._snapshot)
        self.accounts = Accounts(recorder, randomness or random.Random(), self._file.changed)  # noqa: S311 (jitter, not a secret)

    async def start(self, catalogue: Catalogue) -> None:
        """Goes over to the first catalogue, and takes up what an earlier process has learnt."""
        self.adopt(catalogue)
        found = await self._file.read()
        now = self._clock()
        self.accounts.restore(found.get("accounts"), self._wall() - now, now)

    def adopt(self, catalogue: Catalogue) -> None:
        """Goes over to another catalogue."""
        self.accounts.adopt(catalogue.providers.values())

    async def close(self) -> None:
        """Writes what is not written yet."""
        await self._file.close()

    def of(self, target: Target, now: float) -> Unavailable | None:
        """Returns why a target cannot be asked now; None if it can be."""
        held = self.accounts.held(target, now)
        return None if held is None else Unavailable(held.fault, held.seconds, waits=True)

    def plan(self, route: Route, state: RoutingState, now: float) -> Sequence[Target]:
        """Returns the targets of a route in the order in which they are to be tried, without those that cannot be asked now.

        If none can be, it is the one for which the wait is shortest, if it is short.

        Raises:
            GatewayError: Nobody can be asked soon; it says when again.
        """
        free: list[Target] = []
        soonest: tuple[Target, Unavailable] | None = None
        for target in route.targets:
            found = self.of(target, now)
            if found is None:
                free.append(target)
            elif soonest is None or found.retry_after < soonest[1].retry_after:
                soonest = (target, found)
        if soonest is None:
            return route.plan(state, now)
        if free:
            return replace(route, targets=tuple(free)).plan(state, now)
        target, found = soonest
        if found.waits and found.retry_after <= _SHORT_SECONDS:
            return (target,)
        raise self._refusal(target, found)

    def tries(self, planned: Iterator[tuple[Target, float]], failed: Sequence[FailedAttempt]) -> Iterator[tuple[Target, float]]:
        """Gives each planned try, with the pause before it, through an account, and through further ones if it is to blame.

        Args:
            planned: The tries.
            failed: The attempts that have failed, to which the caller adds each that does before it asks for the next try.

        Raises:
            GatewayError: There was no try at all.
        """
        last: Target | None = None
        for target, pause in planned:
            last = target
            if target.provider.accounts:
                yield from self._through_accounts(target, pause, failed)
            else:
                yield target, pause
        if last is not None and not failed:
            now = self._clock()
            raise self._refusal(last, self.of(last, now) or Unavailable(Fault.RATE, 1.0, waits=False))

    def seat(self, target: Target) -> Target:
        """Returns a target as it is to be asked once: through the account whose turn it is, if its provider has several.

        Raises:
            GatewayError: It cannot be asked now.
        """
        now = self._clock()
        found = self.of(target, now)
        if found is None:
            return self.accounts.take(target, now) or target if target.provider.accounts else target
        raise self._refusal(target, found)

    def ended(self, target: Target, fault: BaseException | None) -> None:
        """Notes how a request to a target went."""
        self.accounts.ended(target, fault, self._clock())

    def _through_accounts(self, target: Target, pause: float, failed: Sequence[FailedAttempt]) -> Iterator[tuple[Target, float]]:
        tried: set[str] = set()
        while True:
            now = self._clock()
            taken = self.accounts.take(target, now + pause, tried)
            if taken is None and not tried:
                held = self.accounts.held(target, now + pause)
                if held is None or held.seconds > _SHORT_SECONDS:
                    self.accounts.unavailable(target.provider.name)
                    return
                pause += held.seconds
                taken = self.accounts.take(target, now + pause, tried)
            if taken is None:
                return
            tried.add(taken.provider.account)
            count = len(failed)
            yield taken, pause
            if len(failed) == count or not is_account_to_blame(taken, failed[-1].error):
                return
            pause = 0.0

    def _refusal(self, target: Target, found: Unavailable) -> GatewayError:
        self.accounts.unavailable(target.provider.name)
        return GatewayError(
            _KINDS.get(found.reason, ErrorKind.ERROR_KIND_RATE_LIMITED),
            f"The model '{target.model}' of '{target.provider.name}' cannot be asked now. {_SAYS[found.reason]}",
            provider=target.provider.name,
            model=target.model,
            retry_after=found.retry_after,
        )

    def _snapshot(self) -> Mapping[str, Any]:
        return {"accounts": self.accounts.snapshot(self._wall() - self._clock())}


def is_account_to_blame(target: Target, error: GatewayError) -> bool:
    """Tells whether it is the account through which a target was asked, and not the target, that is at fault."""
    rest = RESTS.get(fault_of(error))
    return bool(target.provider.account) and rest is not None and not rest.shared


def through_account(route: Route, account: str) -> Route:
    """Returns a route on which an account alone is asked; the same if it is not configured, or no more."""
    if not account:
        return route
    targets = tuple(
        AccountTarget.through(target, variant, 0.0)
        for target in route.targets
        for variant in target.provider.accounts
        if variant.account == account
    )
    return replace(route, targets=targets) if targets else route


def every_account_failed(failed: Sequence[FailedAttempt]) -> GatewayError:
    """Returns the error of a request whose one target has failed. If there were several accounts, it names each attempt.

    It is the last attempt's; one that says that an account is not let in gives way to any other, since that one may pass.
    """
    error = next((one.error for one in reversed(failed) if fault_of(one.error) is not Fault.AUTH), failed[-1].error)
    if len({one.target.provider.account for one in failed}) > 1:
        attempts = "; ".join(f"{one.target.provider.account}: {one.error.kind_name} ({one.error.message[:200]})" for one in failed)
        waits = [one.error.retry_after for one in failed if one.error.retry_after is not None]
        error.message = f"Every account of '{failed[-1].target.provider.name}' that was asked failed. {attempts}"
        error.retry_after = min(waits) if waits else None
    return error
