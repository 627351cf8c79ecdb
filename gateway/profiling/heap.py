"""The heap profiles: what was allocated while somebody watched, and is there still.

Python counts allocations only while it is told to (`tracemalloc`), which slows it down, so that is done for as long as the
profile takes and no longer. What was there before is not seen, and neither is what native code allocates by itself.
"""

import asyncio
import linecache
import time
import tracemalloc
from typing import Final

from gateway.profiling.profile import Frame, Profile, ValueType
from gateway.profiling.source import Functions

_DEEPEST: Final = 24
_SEEN_ONLY: Final = (
    "Only what was allocated during the profile is in it; what was there before, and what native code allocates, is not."
)
_STILL_THERE: Final = "Python knows of what is still there alone: what was allocated and freed again is not in it."


async def heap(seconds: float) -> Profile:
    """Returns what was allocated during so many seconds and is there still."""
    return await _watched(seconds, "inuse", (_SEEN_ONLY,))


async def allocs(seconds: float) -> Profile:
    """Returns the same under the names by which allocations are asked for."""
    return await _watched(seconds, "alloc", (_SEEN_ONLY, _STILL_THERE))


async def _watched(seconds: float, name: str, comments: tuple[str, ...]) -> Profile:
    started_ns, began_ns = time.time_ns(), time.monotonic_ns()
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start(_DEEPEST)
    try:
        await asyncio.sleep(seconds)
        snapshot = await asyncio.to_thread(tracemalloc.take_snapshot)
    finally:
        if not was_on:
            tracemalloc.stop()
    profile = Profile(
        (ValueType(f"{name}_objects", "count"), ValueType(f"{name}_space", "bytes")),
        ValueType("space", "bytes"),
        0,
        started_ns,
        time.monotonic_ns() - began_ns,
        comments,
    )
    await asyncio.to_thread(_fill, profile, snapshot)
    return profile


def _fill(profile: Profile, snapshot: tracemalloc.Snapshot) -> None:
    own = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, linecache.__file__))
    functions = Functions()
    for statistic in snapshot.filter_traces(own).statistics("traceback"):
        # A traceback has its innermost frame last.
        stack = tuple(
            Frame(functions.name(frame.filename, frame.lineno), frame.filename, 0, frame.lineno)
            for frame in reversed(statistic.traceback)
        )
        profile.add(stack, statistic.count, statistic.size)
