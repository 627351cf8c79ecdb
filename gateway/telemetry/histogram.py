"""A histogram as plain numbers, cheap enough to be fed once per chunk.

`prometheus_client`'s own takes a lock and walks its buckets for every value. This one is written on the event loop's thread alone,
so it takes no lock; a scrape may read it from another thread at any time, and at worst sees a value whose sum is not there yet.
Above it are the counts of `gateway.telemetry.counts`; `metrics` and `genai` turn it into what Prometheus and OTLP want.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple


class Exemplar(NamedTuple):
    """One value of a bucket, with the trace that shows how it came about.

    Attributes:
        trace_id: 32 hexadecimal digits.
        value: The value, in the histogram's unit.
        timestamp: When it was seen, in seconds since 1970.
    """

    trace_id: str
    value: float
    timestamp: float


class Histogram:
    """Counts values by size.

    Attributes:
        bounds: The buckets' upper bounds, rising; a bucket holds values that equal its bound. One more bucket holds the rest.
        counts: How many values each bucket holds, not summed up.
        sum: The sum of all values.
        exemplars: The latest sampled value of a bucket, by the bucket's position.
    """

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Counts a value.

        Args:
            value: The value.
            trace_id: The trace it belongs to, if that trace is sampled.
        """
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace_id is not None:
            self.exemplars[bucket] = Exemplar(trace_id, value, time.time())

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)


def merged(histograms: Iterable[Histogram], bounds: tuple[float, ...]) -> Histogram:
    """Returns one histogram of all values.

    Args:
        histograms: Histograms that all have `bounds`.
        bounds: Their bounds.
    """
    total = Histogram(bounds)
    for histogram in histograms:
        total.counts = [mine + its for mine, its in zip(total.counts, histogram.counts, strict=True)]
        total.sum += histogram.sum
        total.exemplars.update(histogram.exemplars)
    return total
