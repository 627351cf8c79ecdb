"""Who can be asked at all: what a provider's accounts and its billing say, in one place for the exchange and for what is forwarded.

    plan       leaves out the targets that cannot be asked now
    tries      asks one target through one account after the other
    ended      notes how it went

Above are the exchange and the forwarder, which call this where they choose and where they are done; below are accounts and billing.
What is learnt here outlives the process, in a small file.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.accounts.accounts import Accounts, AccountTarget
from gateway.accounts.faults import RESTS, Fault, fault_of
from gateway.billing.asking import Asking
from gateway.billing.billing import Billing
from gateway.errors import GatewayError
from gateway.providers.sender import Sender
from gateway.routing.catalogue import Catalogue, Route
from gateway.routing.plan import LeftOut
from gateway.routing.target import Target
from gateway.state_file import StateFile
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)

_SHORT_SECONDS = 2.0
"""So long a request waits for an account, if nobody else can be asked."""

_CREDIT = "credit"
_QUOTA, _ACCOUNT = "quota", "account"
_REASONS = frozenset({_QUOTA, _ACCOUNT})

_KINDS: Mapping[str, ErrorKind.ValueType] = {
    Fault.AUTH: ErrorKind.ERROR_KIND_AUTH_FAILED,
    Fault.QUOTA: ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
    _CREDIT: ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
}
_SAYS: Mapping[str, str] = {
    Fault.AUTH: "Its provider accepts the credential of none of its accounts; whoever runs this gateway must look at them.",
    Fault.QUOTA: "What its provider lets this gateway use is used up. Try again later, or another model.",
    _CREDIT: "The credit at its provider is spent. Ask for another model, or whoever runs this gateway for more.",
    Fault.RATE: "All of its provider's accounts have asked too fast. Try again later.",
    Fault.CAPACITY: "Its provider has no room for any of its accounts. Try again later, or another model.",
    Fault.SERVER: "Its provider has just failed. Try again in a moment, or another model.",
}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """That a target cannot be asked now.

    Attributes:
        reason: Why: what its accounts' errors blame, or `credit` where none is left.
        retry_after: Seconds after which it can be.
        waits: Whether a request may wait for it, if that is short.
    """

    reason: str
    retry_after: float
    waits: bool


class Try(NamedTuple):
    """A target that is to be tried.

    Attributes:
        target: The target.
        pause: Seconds to wait before.
        again: Whether it was tried before for the same request.
    """

    target: Target
    pause: float
    again: bool


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
        sender: Sender,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        randomness: random.Random | None = None,
    ) -> None:
        """Makes one that knows nothing yet.

        Args:
            path: The file in which what is learnt outlives the process.
            recorder: Counts.
            sender: Asks providers what is left.
            clock: Seconds that only rise.
            wall: Seconds since 1970, for the file.
            randomness: Where the jitter of locks comes from.
        """
        self._clock = clock
        self._wall = wall
        self._file = StateFile(path, self._snapshot)
        self.accounts = Accounts(recorder, randomness or random.Random(), self._file.changed)  # noqa: S311 (jitter, not a secret)
        self.billing = Billing(self._file.changed)
        self._asking = Asking(sender, lambda name, reading, every: self.billing.asked(name, reading, clock(), every))

    async def start(self, catalogue: Catalogue) -> None:
        """Goes over to the first catalogue, takes up what an earlier process has learnt, and begins to ask what is left."""
        self.accounts.adopt(catalogue.providers.values())
        self.billing.adopt(catalogue.providers.values())
        found = await self._file.read()
        now = self._clock()
        self.accounts.restore(found.get("accounts"), self._wall() - now, now)
        self.billing.restore(found.get("billing"), self._wall() - now)
        self._asking.adopt(catalogue.providers.values())

    def adopt(self, catalogue: Catalogue) -> None:
        """Goes over to another catalogue."""
        providers = catalogue.providers.values()
        self.accounts.adopt(providers)
        self.billing.adopt(providers)
        self._asking.adopt(providers)

    async def close(self) -> None:
        """Asks nobody any more, and writes what is not written yet."""
        await self._asking.stop()
        await self._file.close()

    def of(self, target: Target, now: float) -> Unavailable | None:
        """Returns why a target cannot be asked now; None if it can be."""
        if target.provider.billing is not None and (spent := self.billing.spent(target, now)) is not None:
            return Unavailable(spent.of, spent.seconds, waits=False)
        held = self.accounts.held(target, now)
        return None if held is None else Unavailable(held.fault, held.seconds, waits=True)

    @staticmethod
    def preferred(targets: Sequence[Target]) -> Sequence[Target]:
        """Returns the targets, those first that cost nothing where their provider's billing prefers that; in order otherwise."""
        first = [target for target in targets if _is_preferred(target)]
        return [*first, *(target for target in targets if not _is_preferred(target))] if first else targets

    def left_out(self, target: Target, now: float) -> LeftOut | None:
        """Returns why a plan leaves a target out; None if it does not."""
        found = self.of(target, now)
        if found is None:
            return None
        return LeftOut(
            target,
            _QUOTA if found.reason in {Fault.QUOTA, _CREDIT} else _ACCOUNT,
            _SAYS[found.reason],
            found.retry_after,
            _KINDS.get(found.reason, ErrorKind.ERROR_KIND_RATE_LIMITED),
            worth_waiting=found.waits and found.retry_after <= _SHORT_SECONDS,
        )

    def note_refusal(self, left_out: Sequence[LeftOut]) -> None:
        """Counts that a request was refused since of these targets nobody could be asked."""
        for name in {one.target.provider.name for one in left_out if one.reason in _REASONS and one.target.provider.accounts}:
            self.accounts.unavailable(name)

    def tries(self, planned: Iterator[Try], failed: Sequence[FailedAttempt]) -> Iterator[Try]:
        """Gives each planned try through an account, and through further ones if it is to blame.

        Args:
            planned: The tries.
            failed: The attempts that have failed, to which the caller adds each that does before it asks for the next try.
        """
        for one in planned:
            if one.target.provider.accounts:
                yield from self._through_accounts(one, failed)
            else:
                yield one

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

    def ended(
        self,
        target: Target,
        fault: BaseException | None,
        headers: Mapping[str, str] | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Notes how a request to a target went.

        Args:
            target: Who was asked.
            fault: Why it did not go well; None if it did.
            headers: The headers of the answer, by names in any case; None if there was none.
            cost_usd: What it cost; None if that is not known.
        """
        if target.provider.account:
            self.accounts.ended(target, fault, self._clock())
        if target.provider.billing is not None:
            self.billing.ended(target, headers, cost_usd, self._clock(), self._wall())

    def _through_accounts(self, planned: Try, failed: Sequence[FailedAttempt]) -> Iterator[Try]:
        target, pause, again = planned.target, planned.pause, planned.again
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
            yield Try(taken, pause, again=again)
            if len(failed) == count or not is_account_to_blame(taken, failed[-1].error):
                return
            pause, again = 0.0, True

    def refusal(self, target: Target) -> GatewayError:
        """Returns the error of a request whose one target could not be asked through any account."""
        return self._refusal(target, self.of(target, self._clock()) or Unavailable(Fault.RATE, 1.0, waits=False))

    def _refusal(self, target: Target, found: Unavailable) -> GatewayError:
        if target.provider.accounts:
            self.accounts.unavailable(target.provider.name)
        return GatewayError(
            _KINDS.get(found.reason, ErrorKind.ERROR_KIND_RATE_LIMITED),
            f"The model '{target.model}' of '{target.provider.name}' cannot be asked now. {_SAYS[found.reason]}",
            provider=target.provider.name,
            model=target.model,
            retry_after=found.retry_after,
        )

    def _snapshot(self) -> Mapping[str, Any]:
        ahead = self._wall() - self._clock()
        return {"accounts": self.accounts.snapshot(ahead), "billing": self.billing.snapshot(ahead)}


def _is_preferred(target: Target) -> bool:
    billing = target.provider.billing
    return billing is not None and billing.prefer_free and target.costs_nothing


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
