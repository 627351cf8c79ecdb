"""The generic cell rate algorithm: a rate as one number, the theoretical arrival time. Pure, and exact: in whole microseconds.

Source: ITU-T I.371, annex A. The bucket is full when that time is not ahead of now, and empty when it is a whole period ahead.
`gateway/state/claims.lua` says the same to a Valkey server; both pass one suite.
"""

from msgspec import Struct

from gateway.state.claims import MICRO, Rate


class Outcome(Struct, frozen=True, gc=False):
    """What a claim does to a bucket.

    Attributes:
        arrival: The bucket's new time, in microseconds; the old one if the claim is not met.
        wait: In how many microseconds it can be met; 0 if it is.
        left: How much could be claimed after it.
        full: In how many microseconds the bucket is full.
    """

    arrival: int
    wait: int
    left: int
    full: int


def take(arrival: int, now: int, rate: Rate) -> Outcome:
    """Returns what a claim comes to.

    Args:
        arrival: The bucket's time, in microseconds; 0 if it was never used.
        now: The time, in microseconds on the same clock.
        rate: The claim.
    """
    limit = rate.limit
    period = rate.period_seconds * MICRO
    start = max(now, arrival)
    end = start + (min(limit, rate.cost)) * period // limit
    ahead = end - now
    if ahead > period:
        return Outcome(arrival, ahead - period, left(arrival, now, rate), start - now)
    return Outcome(end, 0, (period - ahead) * limit // period, ahead)


def give(arrival: int, now: int, rate: Rate, used: int) -> int:
    """Returns the bucket's time once a claim is known to have come to so much. A bucket is never more than full.

    It may be more than a period ahead then: who used more than there was is waited for.
    """
    period = rate.period_seconds * MICRO
    claimed = min(rate.cost, rate.limit)
    return max(arrival + used * period // rate.limit - claimed * period // rate.limit, now)


def left(arrival: int, now: int, rate: Rate) -> int:
    """Returns how much could be claimed."""
    period = rate.period_seconds * MICRO
    return max(0, (period - max(0, arrival - now)) * rate.limit // period)
