"""When a target is left alone, and when it is trusted again."""

import random
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError, UpstreamFacts
from gateway.failures import hold_of
from gateway.routing.breaker import PROBES, Breaker, BreakerSettings, BreakerState, Hold

SETTINGS = BreakerSettings(failure_threshold=3, cooldown_seconds=60)


def fail(breaker: Breaker, *times: float, settings: BreakerSettings = SETTINGS, hold: Hold | None = None) -> list[bool]:
    return [breaker.failed(breaker.enter(), now, settings, "provider_error", hold) for now in times]


def succeed(breaker: Breaker, settings: BreakerSettings = SETTINGS) -> bool:
    return breaker.succeeded(breaker.enter(), settings)


def test_failures_in_a_row_open_it_for_a_while() -> None:
    breaker = Breaker()
    assert fail(breaker, 0, 1, 2) == [False, False, True]
    assert [breaker.available(now) for now in (2, 61.9, 62)] == [False, False, True]
    assert breaker.wait_seconds(52) == 10


def test_a_success_forgets_failures_before_it() -> None:
    breaker = Breaker()
    fail(breaker, 0, 1)
    succeed(breaker)
    assert (breaker.idle, fail(breaker, 2, 3)) == (True, [False, False])


def test_with_a_window_only_failures_within_it_count_and_successes_between_them_change_nothing() -> None:
    within = BreakerSettings(failure_threshold=3, window_seconds=10)
    breaker = Breaker()
    fail(breaker, 0, 6, settings=within)
    succeed(breaker, within)
    assert fail(breaker, 11, settings=within) == [False]
    assert fail(breaker, 12, settings=within) == [True]


def test_half_open_it_lets_a_few_probes_through_and_closes_after_enough_successes() -> None:
    careful = BreakerSettings(failure_threshold=1, cooldown_seconds=60, success_threshold=2)
    breaker = Breaker()
    fail(breaker, 0, settings=careful)
    probes = [breaker.enter() for _ in range(PROBES)]
    assert (breaker.state, breaker.available(60)) == (BreakerState.HALF_OPEN, False)
    breaker.abandoned(probes.pop())
    assert breaker.available(60)
    assert [breaker.succeeded(probe, careful) for probe in probes] == [False, True]
    assert (breaker.state, breaker.idle) == (BreakerState.CLOSED, True)


def test_half_open_one_failure_opens_it_again() -> None:
    breaker = Breaker()
    fail(breaker, 0, 0, 0)
    assert fail(breaker, 100) == [True]
    assert [breaker.available(now) for now in (159, 160)] == [False, True]


def test_what_began_before_it_opened_says_nothing_any_more() -> None:
    breaker = Breaker()
    early = [breaker.enter() for _ in range(2)]
    fail(breaker, 0, 0, 0)
    assert not breaker.succeeded(early[0], SETTINGS)
    assert not breaker.failed(early[1], 30, SETTINGS, "network_error")
    assert breaker.wait_seconds(0) == 60


def test_a_provider_that_asks_to_wait_is_not_asked_even_as_a_last_resort() -> None:
    breaker = Breaker()
    assert fail(breaker, 0, hold=Hold(10, asked=True)) == [True]
    assert [breaker.as_last_resort(now) for now in (0, 9.9, 10)] == [False, False, True]
    other = Breaker()
    fail(other, 0, 0, 0)
    assert (other.available(1), other.as_last_resort(1)) == (False, True)


def test_of_many_requests_at_once_that_are_told_to_wait_the_longest_wait_holds() -> None:
    breaker = Breaker()
    first, second = breaker.enter(), breaker.enter()
    breaker.failed(first, 0, SETTINGS, "rate_limited", Hold(1, asked=True))
    breaker.failed(second, 0, SETTINGS, "rate_limited", Hold(30, asked=True))
    assert breaker.wait_seconds(0) == 30


def test_holds_in_a_row_raise_the_level_and_a_success_ends_that() -> None:
    breaker = Breaker()
    fail(breaker, 0, 10, 20, hold=Hold(1))
    assert breaker.level == 3
    succeed(breaker)
    assert breaker.level == 0


@dataclass
class Entered:
    token: int
    era: int


class AgainstAPlainModel(RuleBasedStateMachine):
    """The breaker against what its rules say in the plainest words: lists of what happened in this era."""

    attempts = Bundle("attempts")

    @initialize(threshold=st.integers(1, 4), successes=st.integers(1, 3))
    def begin(self, threshold: int, successes: int) -> None:
        self.settings = BreakerSettings(threshold, 10.0, 0.0, successes)
        self.breaker = Breaker()
        self.now = 0.0
        self.era = 0
        self.state = "closed"
        self.until = 0.0
        self.asked = False
        self.row = 0
        self.good = 0
        self.probes = 0

    def may(self) -> bool:
        return {"closed": True, "open": self.now >= self.until, "half-open": self.probes < 3}[self.state]

    @precondition(lambda self: self.may())
    @rule(target=attempts)
    def enter(self) -> Entered:
        return self._entered()

    @precondition(lambda self: not self.may() and self.state == "open" and not self.asked)
    @rule(target=attempts)
    def enter_as_a_last_resort(self) -> Entered:
        return self._entered()

    def _entered(self) -> Entered:
        token = self.breaker.enter()
        if self.state == "open":
            self._change("half-open")
        if self.state == "half-open":
            self.probes += 1
        return Entered(token, self.era)

    @rule(attempt=consumes(attempts))
    def succeed(self, attempt: Entered) -> None:
        closed = self.breaker.succeeded(attempt.token, self.settings)
        if attempt.era != self.era:
            assert not closed
            return
        if self.state == "closed":
            self.row = 0
            return
        self.probes -= 1
        self.good += 1
        assert closed is (self.good >= self.settings.success_threshold)
        if closed:
            self._change("closed")
            self.row = 0

    @rule(attempt=consumes(attempts), held=st.none() | st.floats(0.5, 30), asked=st.booleans())
    def fail(self, attempt: Entered, held: float | None, asked: bool) -> None:
        hold = None if held is None else Hold(held, asked=asked)
        opened = self.breaker.failed(attempt.token, self.now, self.settings, "provider_error", hold)
        if attempt.era != self.era:
            assert not opened
            if hold is not None and hold.asked and self.state == "open":
                self.until, self.asked = max(self.until, self.now + hold.seconds), True
            return
        self.row += 1
        assert opened is (hold is not None or self.state == "half-open" or self.row >= self.settings.failure_threshold)
        if opened:
            self._change("open")
            self.until = self.now + (10.0 if hold is None else hold.seconds)
            self.asked = hold is not None and hold.asked

    @rule(attempt=consumes(attempts))
    def abandon(self, attempt: Entered) -> None:
        self.breaker.abandoned(attempt.token)
        if attempt.era == self.era and self.state == "half-open":
            self.probes -= 1

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_lets_through_what_the_model_does(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state.name.lower().replace("_", "-") == self.state
            assert self.breaker.available(self.now) is self.may()

    def _change(self, state: str) -> None:
        self.state = state
        self.era += 1
        self.probes = self.good = 0


AgainstAPlainModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstAPlainModel = AgainstAPlainModel.TestCase


def test_times_to_hold_a_target_are_the_documented_ones() -> None:
    def seconds(kind: str, level: int = 0, status: int | None = None, retry_after: float | None = None) -> float | None:
        upstream = UpstreamFacts(status) if status else None
        error = GatewayError(ErrorKind.Value(f"ERROR_KIND_{kind}"), "No.", upstream=upstream, retry_after=retry_after)
        hold = hold_of(error, level, lambda low, high: (low + high) / 2)
        return None if hold is None else hold.seconds

    assert [seconds("AUTH_FAILED"), seconds("PERMISSION_DENIED", 7)] == [120, 120]
    assert [seconds("RATE_LIMITED", level) for level in (0, 1, 15, 99)] == [0.5, 1, 16384, 16384]
    assert [seconds("QUOTA_EXHAUSTED", level) for level in (0, 2)] == [60, 240]
    assert [seconds("RATE_LIMITED", level, status=529) for level in (0, 1)] == [30, 60]
    assert [seconds("PROVIDER_ERROR"), seconds("NETWORK_ERROR"), seconds("PROVIDER_TIMEOUT")] == [None, None, None]
    assert [seconds("RATE_LIMITED", 5, retry_after=7), seconds("PROVIDER_ERROR", retry_after=1e6)] == [7, 3600]
    varied = hold_of(GatewayError(ErrorKind.ERROR_KIND_AUTH_FAILED, "No."), 0, random.Random(1).uniform)  # noqa: S311 (jitter)
    assert varied is not None
    assert 114 <= varied.seconds <= 126
