"""The rate algorithm against a plain model: a bucket that is refilled drop by drop."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.state import gcra
from gateway.state.claims import MICRO, Rate

STEPS = st.lists(st.tuples(st.integers(0, 120 * MICRO), st.integers(0, 30), st.integers(0, 40)), max_size=40)


@given(limit=st.integers(1, 20), steps=STEPS)
def test_it_lets_through_what_a_bucket_would(limit: int, steps: list[tuple[int, int, int]]) -> None:
    arrival, now = 0, 1_700_000_000 * MICRO
    level = Fraction(limit)
    for pause, cost, _ in steps:
        now += pause
        level = min(Fraction(limit), level + Fraction(pause * limit, 60 * MICRO))
        rate = Rate("key", limit, cost)
        wanted = min(cost, limit)
        outcome = gcra.take(arrival, now, rate)
        met = level >= wanted
        # Rounding down to microseconds may let a claim through that a bucket would hold back for less than one of them.
        short = (wanted - level) * 60 * MICRO / limit
        assert (outcome.wait == 0) == met or 0 < short <= len(steps)
        if outcome.wait == 0:
            arrival = outcome.arrival
            level = max(Fraction(0), level - wanted)
        assert outcome.arrival == arrival
        assert 0 <= outcome.left <= limit
        assert outcome.full == max(0, arrival - now)


@given(limit=st.integers(1, 1000), cost=st.integers(0, 2000), used=st.integers(0, 5000))
def test_a_claim_that_is_settled_leaves_the_bucket_as_if_the_use_had_been_known(limit: int, cost: int, used: int) -> None:
    now, rate = 1_700_000_000 * MICRO, Rate("key", limit, cost)
    taken = gcra.take(0, now, rate)
    settled = gcra.give(taken.arrival, now, rate, used)
    assert abs(settled - (now + used * 60 * MICRO // limit)) <= 1
