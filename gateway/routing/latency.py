"""How soon targets begin to answer: the median of the last few times, so that one slow answer changes nothing. Pure."""

from collections import deque
from statistics import median
from typing import Final

_SAMPLES: Final = 21


class Latency:
    """How soon one target begins to answer.

    Attributes:
        seconds: The median of the last times; None before the first.
    """

    __slots__ = ("_samples", "seconds")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self.seconds: float | None = None

    def observe(self, seconds: float) -> None:
        """Adds a time. It is done once a request, and the median looked at much more often."""
        self._samples.append(seconds)
        self.seconds = median(self._samples)

    def quantile(self, share: float) -> float | None:
        """Returns the time within which this share of the last answers began; None while there are too few to say."""
        if len(self._samples) < _SAMPLES // 2:
            return None
        ordered = sorted(self._samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
