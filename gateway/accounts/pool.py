"""The pool of one provider's accounts: a state machine that is told the time, and whose random numbers come from outside.

Of each account it knows until when it rests, as a whole and for each model, and when each model was last asked through it. Whoever
takes an account says when it began, and says so again with how it went: what was under way when a lock began tells nothing new, so
that a burst of failures counts as one. Above is `gateway.accounts.accounts`, which has a pool for each provider. Pure.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.accounts.faults import MOST_LEVEL, RESTS, Fault, rest_seconds

MOST_MODELS: Final = 256
"""Of how many models an account's past is kept; names come from callers, who may invent any number."""

ALL_MODELS: Final = ""
"""What the lock of a whole account is kept under."""


@dataclass(slots=True)
class Lock:
    """What holds an account back.

    Attributes:
        until: When it ends, on the caller's clock. It is kept afterwards, for its level.
        since: When it was last set: what began before tells nothing of the time since.
        level: How many such faults there were without a success between them, at most 15.
    """

    until: float
    since: float
    level: int


@dataclass(frozen=True, slots=True)
class Held:
    """That nothing can be asked now.

    Attributes:
        fault: Why.
        seconds: For how long yet, above 0.
    """

    fault: Fault
    seconds: float


@dataclass(slots=True)
class _Past:
    """The past of one account."""

    locks: dict[str, dict[Fault, Lock]] = field(default_factory=dict)
    """By model; of the whole account under `ALL_MODELS`."""
    turns: dict[str, int] = field(default_factory=dict)
    """When each model was last asked, in turns of the pool; the longest ago first."""


class Pool:
    """The accounts of one provider, by their ids."""

    def __init__(self) -> None:
        """Makes a pool that knows nothing of any account."""
        self._pasts: dict[str, _Past] = {}
        self._turn = 0

    def take(self, ids: Sequence[str], model: str, now: float, without: Collection[str] = ()) -> str | None:
        """Returns the account through which the model was asked longest ago, of those that do not rest, and notes that it is now.

        Args:
            ids: The accounts there are; between those never asked, their order decides.
            model: What is to be asked.
            now: The time, in seconds, on a clock that never goes back.
            without: Accounts that must not be taken.
        """
        free = [id_ for id_ in ids if id_ not in without and self.held(id_, model, now) is None]
        if not free:
            return None
        chosen = min(free, key=lambda id_: self._past(id_).turns.get(model, 0))
        self._turn += 1
        turns = self._past(chosen).turns
        turns.pop(model, None)
        turns[model] = self._turn
        if len(turns) > MOST_MODELS:
            self._forget_model(chosen, next(iter(turns)))
        return chosen

    def held(self, id_: str, model: str, now: float) -> Held | None:
        """Returns what holds an account back from a model, the longest lock of all; None if nothing does."""
        past = self._pasts.get(id_)
        if past is None or not past.locks:
            return None
        found: Held | None = None
        for scope in (ALL_MODELS, model):
            for fault, lock in past.locks.get(scope, {}).items():
                if lock.until > now and (found is None or lock.until - now > found.seconds):
                    found = Held(fault, lock.until - now)
        return found

    def soonest(self, ids: Sequence[str], model: str, now: float) -> tuple[str, Held] | None:
        """Returns the account that is the first to be free again, and what holds it back; None if one is free now."""
        found: tuple[str, Held] | None = None
        for id_ in ids:
            held = self.held(id_, model, now)
            if held is None:
                return None
            if found is None or held.seconds < found[1].seconds:
                found = (id_, held)
        return found

    def failed(
        self, id_: str, model: str, fault: Fault, *, began: float, now: float, jitter: float, retry_after: float | None = None
    ) -> bool:
        """Notes a request that failed, and tells whether that has locked anything.

        Args:
            id_: Through which account it was made.
            model: What was asked.
            fault: What its error blames.
            began: When it began.
            now: The time.
            jitter: From -1 to 1: how much longer than usual the lock is.
            retry_after: Seconds that the provider asks to wait, which go before any rule.
        """
        rest = RESTS.get(fault)
        if rest is None:
            return False
        locks = self._past(id_).locks.setdefault(ALL_MODELS if rest.whole else model, {})
        lock = locks.get(fault)
        if lock is not None and began < lock.since:
            if retry_after is None or now + retry_after <= lock.until:
                return False
            lock.until = now + retry_after
            return True
        level = lock.level if lock is not None else 0
        seconds = rest_seconds(rest, level, jitter) if retry_after is None else retry_after
        locks[fault] = Lock(now + seconds, now, min(level + 1, MOST_LEVEL) if rest.grows else 0)
        if len(self._past(id_).locks) > MOST_MODELS:
            self._forget_model(id_, next(scope for scope in self._past(id_).locks if scope != ALL_MODELS))
        return True

    def succeeded(self, id_: str, model: str, *, began: float) -> bool:
        """Notes a request that went well, and tells whether that has changed anything: it lifts what was set before it began."""
        past = self._pasts.get(id_)
        if past is None or not past.locks:
            return False
        changed = False
        for scope in (ALL_MODELS, model):
            locks = past.locks.get(scope)
            if locks is None:
                continue
            for fault in [fault for fault, lock in locks.items() if lock.since <= began]:
                del locks[fault]
                changed = True
            if not locks:
                del past.locks[scope]
        return changed

    def locks(self, id_: str) -> Iterator[tuple[str, Fault, Lock]]:
        """Gives every lock of an account, those that have ended among them, with what it is kept under."""
        past = self._pasts.get(id_)
        # Copied, each in one step, since a thread may ask.
        for scope, locks in list(past.locks.items()) if past is not None else ():
            for fault, lock in list(locks.items()):
                yield scope, fault, lock

    def restore(self, id_: str, scope: str, fault: Fault, lock: Lock) -> None:
        """Puts a lock back that `locks` has given."""
        self._past(id_).locks.setdefault(scope, {})[fault] = lock

    def forget(self, id_: str) -> None:
        """Forgets an account's past."""
        self._pasts.pop(id_, None)

    @property
    def known(self) -> Collection[str]:
        """The accounts of which there is a past."""
        return tuple(self._pasts)

    def _past(self, id_: str) -> _Past:
        past = self._pasts.get(id_)
        if past is None:
            past = self._pasts[id_] = _Past()
        return past

    def _forget_model(self, id_: str, model: str) -> None:
        past = self._past(id_)
        past.turns.pop(model, None)
        past.locks.pop(model, None)
