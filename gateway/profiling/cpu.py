"""The CPU profile: where all threads spend processor time.

Each time that the process has used 10 ms of it, the main thread, in which the event loop runs, is interrupted wherever it is;
what it used since the last time is put down to that place. Other threads are looked at by the way: in Python code they count as
running, and where they wait they do not. What the samples say of the places, the system's clock of each thread says of the sum: a
thread's samples are scaled to the time it has really used. What no Python thread used is shown as that of native threads. Outside
a main thread, a thread of its own looks.
"""

import asyncio
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from gateway.profiling import threads
from gateway.profiling.profile import Frame, Profile, ValueType
from gateway.profiling.sampling import can_interrupt, interrupted, sampled
from gateway.profiling.stacks import FrameWalk, Places

PERIOD_NS: Final = 10_000_000
_CLOCK_EVERY: Final = 50
"""After how many samples the clocks of threads are read again, in case that they end."""

_WAITING: Final = frozenset({"concurrent.futures.thread", "queue", "socketserver", "threading"})
"""Modules in whose functions threads wait for something to do."""

_POLLING: Final = frozenset({"asyncio.base_events", "asyncio.runners", "selectors"})
"""Modules in whose functions an event loop waits, or moves bytes without the interpreter's lock."""

_NATIVE: Final = (Frame("(native threads)", "", 0, 0),)


@dataclass(slots=True)
class _Seen:
    native_id: int | None
    began_ns: int
    used_ns: int
    stacks: dict[Places, list[int]] = field(default_factory=dict)


class _Samples:
    """What was seen of each thread."""

    def __init__(self) -> None:
        self._threads: dict[int, _Seen] = {}
        self._natives = threads.native_ids()
        self._count = 0
        self._walk = FrameWalk()
        self._last_ns = time.monotonic_ns()
        self._caller_ns = time.thread_time_ns()
        self._process_ns = threads.process_ns()
        self._has_clocks = any(threads.processor_ns(native_id) is not None for native_id in self._natives.values())
        self._begun = False
        for ident in sys._current_frames():  # noqa: SLF001 (there is no other way to see all threads)
            self._seen(ident)
        self._begun = True

    def take(self, interrupted_at: FrameType | None = None) -> None:
        """Looks where all threads stand; of the thread that calls, that is where it was interrupted."""
        now_ns = time.monotonic_ns()
        passed_ns, self._last_ns = now_ns - self._last_ns, now_ns
        caller = threading.get_ident()
        if interrupted_at is not None:
            used_ns = time.thread_time_ns()
            spent_ns, self._caller_ns = used_ns - self._caller_ns, used_ns
            values = self._seen(caller).stacks.setdefault(self._walk.walk(interrupted_at), [0, 0])
            values[0] += 1
            values[1] += spent_ns
        for ident, frame in sys._current_frames().items():  # noqa: SLF001 (there is no other way to see all threads)
            if ident == caller:
                continue
            seen = self._seen(ident)
            if self._is_running(frame, seen):
                values = seen.stacks.setdefault(self._walk.walk(frame), [0, 0])
                values[0] += 1
                values[1] += passed_ns
        self._count += 1
        if self._count % _CLOCK_EVERY == 0:
            self._read_clocks()

    def profile(self, started_ns: int, duration_ns: int) -> Profile:
        """Returns the profile."""
        self._read_clocks()
        profile = Profile(
            (ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
            ValueType("cpu", "nanoseconds"),
            PERIOD_NS,
            started_ns,
            duration_ns,
        )
        known_ns = 0
        for seen in self._threads.values():
            if seen.native_id is None and self._has_clocks:
                continue  # one that Python's own library has not made; its time is that of native threads
            used_ns = seen.used_ns - seen.began_ns
            known_ns += used_ns
            sampled_ns = sum(values[1] for values in seen.stacks.values())
            scale = used_ns / sampled_ns if sampled_ns and seen.native_id is not None else 1.0
            for stack, (count, weight_ns) in seen.stacks.items():
                profile.add(self._walk.stack(stack), count, round(weight_ns * scale))
        native_ns = threads.process_ns() - self._process_ns - known_ns
        if self._has_clocks and native_ns > PERIOD_NS:
            profile.add(_NATIVE, native_ns // PERIOD_NS, native_ns)
        return profile

    def _seen(self, ident: int) -> _Seen:
        seen = self._threads.get(ident)
        if seen is None:
            if ident not in self._natives:
                self._natives = threads.native_ids()
            native_id = self._natives.get(ident)
            used_ns = threads.processor_ns(native_id) if native_id is not None else None
            known = native_id if used_ns is not None else None
            # One that was not there at the beginning has used all of its time since.
            seen = self._threads[ident] = _Seen(known, 0 if self._begun else used_ns or 0, used_ns or 0)
        return seen

    @staticmethod
    def _is_running(frame: FrameType, seen: _Seen) -> bool:
        module = frame.f_globals.get("__name__")
        if module in _WAITING:
            return False
        return module not in _POLLING or (seen.native_id is not None and threads.runs(seen.native_id))

    def _read_clocks(self) -> None:
        for seen in self._threads.values():
            if seen.native_id is not None and (used_ns := threads.processor_ns(seen.native_id)) is not None:
                seen.used_ns = used_ns


async def cpu(seconds: float) -> Profile:
    """Returns where processor time is spent during so many seconds."""
    started_ns, began_ns = time.time_ns(), time.monotonic_ns()
    samples = _Samples()
    if can_interrupt():
        async with interrupted(samples.take, PERIOD_NS / 1e9):
            # A loop that waits is not woken by a signal that another thread has got, so it wakes by itself.
            while (left := seconds - (time.monotonic_ns() - began_ns) / 1e9) > 0:  # noqa: ASYNC110 (waking is the point)
                await asyncio.sleep(min(left, PERIOD_NS / 1e9))
    else:
        async with sampled(samples.take, PERIOD_NS / 1e9, "profile cpu"):
            await asyncio.sleep(seconds)
    return samples.profile(started_ns, time.monotonic_ns() - began_ns)
