"""The pool of accounts, held to a plain model of it that keeps all of its past and looks at everything each time."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.accounts.faults import Fault
from gateway.accounts.pool import MOST_MODELS, Held, Pool

IDS = ("a", "b", "c")
MODELS = ("small", "large")
FIRST = {Fault.AUTH: 120.0, Fault.QUOTA: 60.0, Fault.RATE: 0.5, Fault.CAPACITY: 30.0, Fault.SERVER: 1.0}
GROWING = {Fault.QUOTA, Fault.RATE, Fault.CAPACITY}
OF_ALL_MODELS = {Fault.AUTH, Fault.QUOTA}


@dataclass
class Locked:
    """A lock of the model: one account, one fault, one model or all."""

    until: float
    since: float
    failures: int


@dataclass(frozen=True)
class Asked:
    """A request under way."""

    account: str
    model: str
    began: float


class Pools(RuleBasedStateMachine):
    """Requests that begin and end in any order, while time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.now = 1000.0
        self.under_way: list[Asked] = []
        self.taken: list[tuple[str, str]] = []
        self.locks: dict[tuple[str, str, Fault], Locked] = {}

    def rests_until(self, account: str, model: str) -> float:
        own = [lock.until for (locked, scope, _), lock in self.locks.items() if locked == account and scope in {"", model}]
        return max(own, default=0.0)

    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, 45.0, 130.0, 4000.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(model=st.sampled_from(MODELS), without=st.sets(st.sampled_from(IDS), max_size=2))
    def one_begins(self, model: str, without: set[str]) -> None:
        free = [id_ for id_ in IDS if id_ not in without and self.rests_until(id_, model) <= self.now]
        chosen = self.pool.take(IDS, model, self.now, without)
        if not free:
            assert chosen is None
            return
        past = [id_ for id_, asked in self.taken if asked == model]
        longest_ago = min(free, key=lambda id_: max((place + 1 for place, one in enumerate(past) if one == id_), default=0))
        assert chosen == longest_ago
        self.taken.append((longest_ago, model))
        self.under_way.append(Asked(longest_ago, model, self.now))

    @precondition(lambda self: self.under_way)
    @rule(
        which=st.integers(0, 99),
        fault=st.sampled_from(Fault),
        retry_after=st.none() | st.sampled_from([0.0, 7.0, 500.0]),
        jitter=st.floats(-1, 1),
    )
    def one_fails(self, which: int, fault: Fault, retry_after: float | None, jitter: float) -> None:
        asked = self.under_way.pop(which % len(self.under_way))
        self.pool.failed(asked.account, asked.model, fault, began=asked.began, now=self.now, jitter=jitter, retry_after=retry_after)
        if fault is Fault.OTHER:
            return
        key = (asked.account, "" if fault in OF_ALL_MODELS else asked.model, fault)
        lock = self.locks.get(key)
        if lock is not None and asked.began < lock.since:
            lock.until = max(lock.until, self.now + (retry_after or 0.0))
            return
        failures = lock.failures if lock is not None else 0
        growth = 2 ** min(failures, 15) if fault in GROWING else 1
        seconds = FIRST[fault] * growth * (1 + 0.05 * jitter) if retry_after is None else retry_after
        self.locks[key] = Locked(self.now + seconds, self.now, failures + 1)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99))
    def one_succeeds(self, which: int) -> None:
        asked = self.under_way.pop(which % len(self.under_way))
        self.pool.succeeded(asked.account, asked.model, began=asked.began)
        self.locks = {
            key: lock
            for key, lock in self.locks.items()
            if key[0] != asked.account or key[1] not in {"", asked.model} or lock.since > asked.began
        }

    @invariant()
    def it_holds_back_what_the_model_does(self) -> None:
        for model in MODELS:
            waits = {}
            for id_ in IDS:
                held = self.pool.held(id_, model, self.now)
                wait = self.rests_until(id_, model) - self.now
                assert (held is not None) == (wait > 0)
                if held is not None:
                    assert held.seconds == pytest.approx(wait)
                    waits[id_] = held.seconds
            soonest = self.pool.soonest(IDS, model, self.now)
            assert (soonest is not None) == (len(waits) == len(IDS))
            if soonest is not None:
                assert soonest[1].seconds == min(waits.values())


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_the_longest_lock_says_why_an_account_rests() -> None:
    pool = Pool()
    pool.failed("a", "m", Fault.RATE, began=0, now=0, jitter=0)
    pool.failed("a", "m", Fault.AUTH, began=0, now=0, jitter=0)
    assert pool.held("a", "m", 0) == Held(Fault.AUTH, 120.0)
    assert pool.held("a", "other", 0) == Held(Fault.AUTH, 120.0)


def test_a_burst_of_failures_counts_as_one() -> None:
    """A hundred requests that were under way together would else lock an account for hours."""
    pool = Pool()
    for _ in range(100):
        pool.failed("a", "m", Fault.RATE, began=0, now=1, jitter=0)
    assert pool.held("a", "m", 1) == Held(Fault.RATE, 0.5)


def test_a_success_of_before_the_lock_does_not_lift_it() -> None:
    pool = Pool()
    pool.failed("a", "m", Fault.QUOTA, began=0, now=10, jitter=0)
    assert not pool.succeeded("a", "m", began=5)
    assert pool.held("a", "m", 10) is not None
    assert pool.succeeded("a", "m", began=10)
    assert pool.held("a", "m", 10) is None


def test_what_is_kept_of_models_that_callers_invent_is_bounded() -> None:
    pool = Pool()
    for number in range(3 * MOST_MODELS):
        pool.take(["a"], f"m{number}", number)
        pool.failed("a", f"m{number}", Fault.SERVER, began=number, now=number, jitter=0)
    assert len(list(pool.locks("a"))) <= MOST_MODELS
