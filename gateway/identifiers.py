"""Identifiers that sort by the time at which they were made."""

import random
import re
import time
from collections.abc import Callable

_HEX_DIGITS = 32
_TIME_DIGITS = 14
"""Microseconds since 1970 in hexadecimal: enough until the year 4253."""


class Identifiers:
    """Makes identifiers of one kind: a prefix and 32 hexadecimal digits, 14 of the time and 18 at random.

    Each is greater than all before it, so that a list in their order is one in the order of making, and a place in it needs no
    entry that is still there. The 72 random bits cannot be guessed.
    """

    def __init__(self, prefix: str, *, clock: Callable[[], int] = time.time_ns, last: str = "") -> None:
        """Makes a maker.

        Args:
            prefix: What each begins with, such as `file-`.
            clock: Nanoseconds since 1970. It may be set back; identifiers rise all the same.
            last: The greatest identifier that there is already; empty if there is none.
        """
        self._prefix = prefix
        self._pattern = re.compile(f"{re.escape(prefix)}[0-9a-f]{{{_HEX_DIGITS}}}")
        self._clock = clock
        self._random = random.SystemRandom()
        self._last = int(last[len(prefix) :][:_TIME_DIGITS], 16) if last else 0

    def new(self) -> str:
        """Returns a new identifier."""
        self._last = max(self._clock() // 1000, self._last + 1)
        digits = _HEX_DIGITS - _TIME_DIGITS
        return f"{self._prefix}{self._last:0{_TIME_DIGITS}x}{self._random.getrandbits(4 * digits):0{digits}x}"

    def has_form(self, text: str) -> bool:
        """Tells whether a text looks like one of these."""
        return self._pattern.fullmatch(text) is not None
