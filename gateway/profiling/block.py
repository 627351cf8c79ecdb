"""What holds the event loop up: stalls, with the stack that caused each. Reads the loop's frames from a thread.

A timer on the loop beats; when the beat is late, a watchdog thread looks at what the loop's thread does until the beat goes on.
"""

import asyncio
import sys
import threading
import time
from collections import Counter

from gateway.profiling.profile import Profile, Stack, ValueType
from gateway.profiling.stacks import stack_of_frame

BEAT = 0.01
"""Seconds between two beats of the loop."""

LOOK = 0.01
"""Seconds between two looks of the watchdog."""

STALL = 0.05
"""Seconds by which a beat has to be late to be a stall."""


async def block(seconds: float) -> Profile:
    """Returns the stalls of the running loop during so many seconds: how many, and how long, by the stack that caused them."""
    profile = Profile(
        (ValueType("contentions", "count"), ValueType("delay", "nanoseconds")),
        ValueType("delay", "nanoseconds"),
        period=round(LOOK * 1e9),
        started_ns=time.time_ns(),
        comments=(
            f"Stalls of the event loop of {STALL * 1000:.0f} ms and more, sampled every {LOOK * 1000:.0f} ms.",
            "A stack of the loop's own means that its thread got no turn: the interpreter or the machine was busy.",
            "A call that keeps the interpreter to itself is seen as it ends; one that ends the stall as well is not seen.",
        ),
    )
    began = time.monotonic_ns()
    heart = _Heart(asyncio.get_running_loop(), profile)
    watchdog = threading.Thread(target=heart.watch, name="profile-block", daemon=True)
    watchdog.start()
    try:
        await asyncio.sleep(seconds)
    finally:
        heart.stop()
        # It returns at its next step, which takes no turn of the loop: waiting lets nothing stay behind, even when cancelled.
        watchdog.join()
    profile.duration_ns = time.monotonic_ns() - began
    return profile


class _Heart:
    """The beat of a loop, and who watches it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, profile: Profile) -> None:
        self._loop = loop
        self._profile = profile
        self._thread = threading.get_ident()
        self._over = threading.Event()
        self._seen: list[Stack] = []
        self._last = time.monotonic()
        self._timer = loop.call_later(BEAT, self._beat)

    def stop(self) -> None:
        """Ends the beat and the watch."""
        self._over.set()
        self._timer.cancel()

    def watch(self) -> None:
        """Looks at the loop's thread while the beat is late. Runs in a thread of its own.

        It looks from the first late beat on, though not each becomes a stall: a stall's beginning counts as much as its end.
        """
        while not self._over.wait(LOOK):
            last, seen = self._last, self._seen
            if time.monotonic() - last < BEAT + LOOK:
                continue
            stack = stack_of_frame(sys._current_frames().get(self._thread))  # noqa: SLF001 - the documented way
            # The loop may have gone on meanwhile: it has another list by then, and this one is nobody's.
            if stack and last == self._last:
                seen.append(stack)

    def _beat(self) -> None:
        now = time.monotonic()
        late, seen = now - self._last - BEAT, self._seen
        self._last, self._seen = now, []
        self._timer = self._loop.call_later(BEAT, self._beat)
        if late >= STALL and seen:
            self._record(round(late * 1e9), Counter(seen))

    def _record(self, delay: int, stacks: Counter[Stack]) -> None:
        """Shares a stall among the stacks that were seen in it. It counts once, for the one that was seen most."""
        looks, left = stacks.total(), delay
        for place, (stack, times) in enumerate(reversed(stacks.most_common())):
            main = place == len(stacks) - 1
            share = left if main else delay * times // looks
            left -= share
            self._profile.add(stack, int(main), share)
