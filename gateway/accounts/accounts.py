"""The accounts of all providers: takes one for a request, notes how it went, and tells what outlives the process.

A provider with one credential has nothing here, and costs nothing. Credentials are not here at all: an account is known by its id.
Above is `gateway.availability`; below are the pools. No I/O; the time is passed in.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.accounts.faults import MOST_LEVEL, RESTS, Fault, fault_of
from gateway.accounts.pool import ALL_MODELS, Held, Lock, Pool
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.routing.target import Target
from gateway.telemetry.conditions import AccountCondition
from gateway.telemetry.recorder import Recorder

_FAULTS: Mapping[str, Fault] = {fault.value: fault for fault in RESTS}
_LONGEST_SECONDS = 31 * 86_400.0
"""The longest that is believed of a lock that an earlier process wrote, whose clock may have been wrong."""


@dataclass(frozen=True, slots=True)
class AccountTarget(Target):
    """A target as it is asked through one account.

    Attributes:
        since: When the account was taken.
    """

    since: float = 0.0

    @classmethod
    def through(cls, target: Target, variant: Provider, since: float) -> "AccountTarget":
        """Returns a target as it is asked through the account of this variant of its provider."""
        return cls(
            provider=variant,
            model=target.model,
            agent=target.agent,
            facts=target.facts,
            weight=target.weight,
            max_context=target.max_context,
            max_output=target.max_output,
            since=since,
        )


class Accounts:
    """Knows the accounts of all providers that have several."""

    def __init__(self, recorder: Recorder, randomness: random.Random, changed: Callable[[], None]) -> None:
        """Makes one that knows nothing yet.

        Args:
            recorder: Counts.
            randomness: Where the jitter of locks comes from.
            changed: Is told that what outlives the process has changed.
        """
        self._recorder = recorder
        self._random = randomness
        self._changed = changed
        self._pools: dict[str, Pool] = {}
        self._providers: dict[str, Provider] = {}

    def adopt(self, providers: Iterable[Provider]) -> None:
        """Goes over to these providers. What is known of an account stays, unless its credential is another one now."""
        before = self._providers
        self._providers = {provider.name: provider for provider in providers if provider.accounts}
        self._pools = {name: self._pools.get(name) or Pool() for name in self._providers}
        for name, provider in self._providers.items():
            pool = self._pools[name]
            now = {variant.account: variant.headers for variant in provider.accounts}
            old = {variant.account: variant.headers for variant in before[name].accounts} if name in before else now
            for id_ in pool.known:
                if id_ not in now or old.get(id_) != now[id_]:
                    pool.forget(id_)

    def held(self, target: Target, now: float) -> Held | None:
        """Returns what keeps a target from being asked: that all of its provider's accounts rest. None if one can be taken."""
        accounts = target.provider.accounts
        if not accounts:
            return None
        found = self._pool(target.provider).soonest([account.account for account in accounts], target.model, now)
        return None if found is None else found[1]

    def take(self, target: Target, now: float, without: Collection[str] = ()) -> AccountTarget | None:
        """Takes the account whose turn it is, and returns the target as it is asked through it; None if all of them rest.

        Args:
            target: What is to be asked; its provider has several accounts.
            now: The time.
            without: Accounts that must not be taken.
        """
        provider = target.provider
        id_ = self._pool(provider).take([account.account for account in provider.accounts], target.model, now, without)
        if id_ is None:
            return None
        return AccountTarget.through(target, next(account for account in provider.accounts if account.account == id_), now)

    def unavailable(self, provider: str) -> None:
        """Notes that none of a provider's accounts could be taken."""
        self._recorder.account_selected(provider, "", "unavailable")

    def ended(self, target: Target, fault: BaseException | None, now: float) -> None:
        """Notes how a request went, if it was made through an account."""
        if not isinstance(target, AccountTarget):
            return
        provider, id_, model = target.provider.name, target.provider.account, target.model
        pool = self._pools.get(provider)
        if pool is None:
            return  # it is configured no more
        if fault is None:
            result, changed = "ok", pool.succeeded(id_, model, began=target.since)
        elif isinstance(fault, GatewayError):
            blamed = fault_of(fault)
            if blamed is Fault.AUTH and not model:
                blamed = (
                    Fault.OTHER
                )  # whoever is forwarded chooses a route that this credential may not use, and no other is to blame
            jitter, wait = self._random.uniform(-1.0, 1.0), fault.retry_after
            result = blamed.value
            changed = pool.failed(id_, model, blamed, began=target.since, now=now, jitter=jitter, retry_after=wait)
        else:
            result, changed = ("cancelled" if isinstance(fault, asyncio.CancelledError | GeneratorExit) else "other"), False
        self._recorder.account_selected(provider, id_, result)
        if changed:
            self._changed()

    def states(self, now: float) -> Iterator[AccountCondition]:
        """Gives how each account is, in configured order: as a whole, and then for each model that something is held against."""
        for name, provider in sorted(self._providers.items()):
            pool = self._pools[name]
            for variant in provider.accounts:
                scopes: dict[str, tuple[float, str]] = {ALL_MODELS: (0.0, "")}
                for scope, fault, lock in pool.locks(variant.account):
                    scopes[scope] = max(scopes.get(scope, (0.0, "")), (max(0.0, lock.until - now), fault.value))
                for model, (remaining, error) in scopes.items():
                    yield AccountCondition(name, variant.account, model, remaining, error)

    def snapshot(self, ahead_seconds: float) -> Mapping[str, Any]:
        """Returns what outlives the process, as JSON can hold it.

        Args:
            ahead_seconds: What the clock that is to be written has more than the one of the locks.
        """
        return {
            name: {
                id_: [[model, fault.value, lock.until + ahead_seconds, lock.level] for model, fault, lock in pool.locks(id_)]
                for id_ in pool.known
            }
            for name, pool in self._pools.items()
        }

    def restore(self, snapshot: Any, ahead_seconds: float, now: float) -> None:
        """Puts back what `snapshot` has given to an earlier process. What does not fit is left out."""
        for name, pool in self._pools.items():
            for variant in self._providers[name].accounts:
                of_provider = snapshot.get(name) if isinstance(snapshot, dict) else None
                rows = of_provider.get(variant.account) if isinstance(of_provider, dict) else None
                for row in rows if isinstance(rows, list) else ():
                    match row:
                        case [str(model), str(fault), int() | float() as until, int(level)] if fault in _FAULTS:
                            until = min(until - ahead_seconds, now + _LONGEST_SECONDS)
                            lock = Lock(until, now, max(0, min(level, MOST_LEVEL)))
                            pool.restore(variant.account, model, _FAULTS[fault], lock)
                        case _:
                            continue

    def _pool(self, provider: Provider) -> Pool:
        pool = self._pools.get(provider.name)
        return pool if pool is not None else Pool()  # of a configuration that holds no more: its requests end without a memory
