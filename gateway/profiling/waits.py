"""Waits for locks as looks see them: a wait goes from the first look that sees it to the last. Pure: it is told what and when."""

from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from gateway.profiling.profile import Profile, Stack

LOOK = 0.01
"""Seconds between two looks at locks, if they cost little."""

SHARE = 0.02
"""The most of the time that may go into looking."""


LONGEST = 0.25
"""The most seconds between two looks: one that the garbage collector fell into must not end the looking."""


def pause(took: float) -> float:
    """Returns how long to wait after a look that took so much processor time, so that looking keeps to its share of the time."""
    return min(max(LOOK, took / SHARE), LONGEST)


@dataclass(slots=True)
class _Wait:
    stack: Stack
    seen: float


class Waits:
    """The waits that one looker sees, by the frame that waits: it is the same object for as long as the wait goes on."""

    def __init__(self, now: float) -> None:
        self._turned = now
        self._before: dict[FrameType, _Wait] = {}
        self._now: dict[FrameType, _Wait] = {}
        self._totals: dict[Stack, list[float]] = {}

    def see(self, now: float, frame: FrameType, stack_of: Callable[[], Stack]) -> None:
        """Takes down that a frame waits.

        Args:
            now: When this is, in seconds.
            frame: The frame.
            stack_of: Returns the stack that its wait counts for; called once a wait.
        """
        wait = self._before.pop(frame, None)
        if wait:
            self._add(wait.stack, 0, now - wait.seen)
            wait.seen = now
        else:
            wait = _Wait(stack_of(), now)
            # It began somewhere after the last look, and may go on for as long after its own last one.
            self._add(wait.stack, 1, min(now - self._turned, LOOK))
        self._now[frame] = wait

    def turn(self, now: float) -> None:
        """Ends a look at everything: whatever it has not seen waits no more."""
        self._turned = now
        self._before, self._now = self._now, {}

    def write(self, profile: Profile) -> None:
        """Adds the waits to a profile: how many and how long."""
        for stack, (times, seconds) in self._totals.items():
            profile.add(stack, int(times), round(seconds * 1e9))

    def _add(self, stack: Stack, times: int, seconds: float) -> None:
        total = self._totals.setdefault(stack, [0, 0.0])
        total[0] += times
        total[1] += seconds
