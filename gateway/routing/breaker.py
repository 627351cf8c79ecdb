"""The breaker: leaving a target alone that keeps failing, and finding out carefully whether it works again.

    closed     attempts are made; failures are counted
    open       no attempts are made until a time
    half-open  a few attempts at once are made to find out; enough successes close it, one failure opens it again

Some failures open it at once, and for longer each time: those after which waiting is known to help (`gateway.failures.hold_of`).
Above is `gateway.routing.state`, which has one for each target that has failed. Pure: the clock is passed in.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PROBES: Final = 3
"""How many attempts a half-open breaker lets be under way at once."""

LEVEL_LIMIT: Final = 15
"""How often a hold is doubled at most."""


class BreakerState(IntEnum):
    """What a breaker lets through; the numbers are those of the metric `twinspan_cb_state`."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and closes.

    Attributes:
        failure_threshold: How many failures open it, at least 1.
        cooldown_seconds: How long it stays open.
        window_seconds: In what time the failures must happen; 0 if they must happen in a row instead.
        success_threshold: How many successes close it once it is half-open, at least 1.
    """

    failure_threshold: int = 5
    cooldown_seconds: float = 60.0
    window_seconds: float = 0.0
    success_threshold: int = 1


DEFAULT: Final = BreakerSettings()
"""What holds for models that are asked without an agent."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A failure that opens a breaker at once.

    Attributes:
        seconds: For how long.
        asked: Whether the provider itself has asked for it, so that not even a last resort goes against it.
    """

    seconds: float
    asked: bool = False


class Breaker:
    """The recent past of one target.

    An attempt is entered and then left with how it went: `succeeded`, `failed` or `abandoned`. What began before the breaker last
    changed says nothing of the target now, and is not counted.

    Attributes:
        state: What it lets through.
        failures: Failures since the last success, or in the window.
        until: When an open breaker lets something through again, on the caller's clock.
        level: How often in a row it was held, which doubles the next hold of most kinds.
        last_error: The kind of the last failure; empty if there was none since it was last closed.
        asked: Whether it is open because the provider has asked to wait.
    """

    __slots__ = ("_failed_at", "_generation", "_probes", "_successes", "asked", "failures", "last_error", "level", "state", "until")

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.until = 0.0
        self.level = 0
        self.last_error = ""
        self.asked = False
        self._failed_at: deque[float] = deque()
        self._generation = 0
        self._probes = 0
        self._successes = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        return self.state is BreakerState.CLOSED and not self.failures and not self.level

    def available(self, now: float) -> bool:
        """Tells whether an attempt may be made."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now >= self.until
        return self._probes < PROBES

    def as_last_resort(self, now: float) -> bool:
        """Tells whether an attempt may be made where there is nothing else to try: then an open breaker need not be waited for."""
        if self.state is BreakerState.OPEN:
            return not self.asked or now >= self.until
        return self.available(now)

    def wait_seconds(self, now: float) -> float:
        """Returns how long it stays open."""
        return max(0.0, self.until - now) if self.state is BreakerState.OPEN else 0.0

    def enter(self) -> int:
        """Begins an attempt, and returns what it must be left with. An open breaker is half-open from then on."""
        if self.state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            self._probes += 1
        return self._generation

    def succeeded(self, entered: int, settings: BreakerSettings) -> bool:
        """Ends an attempt that went well, and tells whether the breaker closed with it."""
        if entered != self._generation:
            return False
        if self.state is BreakerState.HALF_OPEN:
            self._probes -= 1
            self._successes += 1
            if self._successes < settings.success_threshold:
                return False
            self._become(BreakerState.CLOSED)
            self._forget()
            return True
        if not settings.window_seconds:
            self._forget()
        self.level = 0
        return False

    def failed(self, entered: int, now: float, settings: BreakerSettings, error_kind: str, hold: Hold | None = None) -> bool:
        """Ends an attempt that failed, and tells whether the breaker opened with it.

        Args:
            entered: What `enter` returned.
            now: The time, on a clock that never goes back, in seconds.
            settings: What holds for the target.
            error_kind: The kind of the failure.
            hold: What opens it at once; None if failures are to be counted.
        """
        if entered != self._generation:
            if hold is not None and hold.asked and self.state is BreakerState.OPEN:
                self.until, self.asked = max(self.until, now + hold.seconds), True
            return False
        self.last_error = error_kind
        self.failures = self._count(now, settings)
        if hold is not None:
            self.level = min(self.level + 1, LEVEL_LIMIT)
            self._open(now + hold.seconds, asked=hold.asked)
            return True
        if self.state is BreakerState.HALF_OPEN or self.failures >= settings.failure_threshold:
            self._open(now + settings.cooldown_seconds, asked=False)
            return True
        return False

    def abandoned(self, entered: int) -> None:
        """Ends an attempt that says nothing of the target: its caller went away, or the request was at fault."""
        if entered == self._generation and self.state is BreakerState.HALF_OPEN:
            self._probes -= 1

    def _count(self, now: float, settings: BreakerSettings) -> int:
        if not settings.window_seconds:
            return self.failures + 1
        self._failed_at.append(now)
        while self._failed_at[0] <= now - settings.window_seconds or len(self._failed_at) > settings.failure_threshold:
            self._failed_at.popleft()
        return len(self._failed_at)

    def _open(self, until: float, *, asked: bool) -> None:
        self._become(BreakerState.OPEN)
        self.until, self.asked = until, asked

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._generation += 1
        self._probes = self._successes = 0

    def _forget(self) -> None:
        self.failures = self.level = 0
        self.last_error = ""
        self._failed_at.clear()
