"""What allocates memory: tracemalloc runs for a while, and what it knows at the end becomes a profile.

While it runs, each allocation costs 1.3 µs more. At the end the loop stands still while the interpreter copies its table:
0.2 µs a block, with the interpreter's lock held throughout, so that no thread would help; `ROOM` bounds it. What else takes time,
which is counting the blocks and finding the functions' names, happens in a thread that gives way.
"""

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.profiling.names import Names
from gateway.profiling.profile import Profile, Stack, ValueType

FRAMES = 24
"""The most frames of a stack."""

ROOM = 8 << 20
"""Bytes of tracemalloc's own that end a profile early: 150,000 to 200,000 blocks, which are copied in about 40 ms."""

LOOK = 0.05
"""Seconds between two looks at how much room it takes."""

_ONE_AT_A_TIME = threading.Lock()  # tracemalloc is the process's, of which there may be many loops


async def heap(seconds: float) -> Profile:
    """Returns what was allocated during so many seconds and is still alive at the end.

    Raises:
        GatewayError: CONFLICT: memory is being profiled already.
    """
    return await _collect(seconds, "inuse", ())


async def allocs(seconds: float) -> Profile:
    """Returns what was allocated during so many seconds, as far as can be told: what is still alive at the end.

    Raises:
        GatewayError: CONFLICT: memory is being profiled already.
    """
    lost = "Only blocks that were still alive at the end are known; what was allocated and freed meanwhile is missing."
    return await _collect(seconds, "alloc", (lost,))


async def _collect(seconds: float, prefix: str, comments: tuple[str, ...]) -> Profile:
    space = ValueType(f"{prefix}_space", "bytes")
    profile = Profile((ValueType(f"{prefix}_objects", "count"), space), space, started_ns=time.time_ns())
    began = time.monotonic_ns()
    with _tracing() as ours:
        if ours:
            full = await _wait(seconds)
            if full:
                comments += ("Ended early: so many blocks were allocated that taking them down would have held up the event loop.",)
        else:
            await asyncio.sleep(seconds)
            comments += ("tracemalloc was on already: what was allocated since it was started is in here too.",)
        profile.duration_ns = time.monotonic_ns() - began
        snapshot = _snapshot()
    profile.comments = comments
    await asyncio.to_thread(_count, snapshot, profile)
    return profile


@contextmanager
def _tracing() -> Iterator[bool]:
    """Has tracemalloc run meanwhile; yields whether it was started for that."""
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise GatewayError(ErrorKind.ERROR_KIND_CONFLICT, "Memory is being profiled already; ask again when that is over.")
    ours = not tracemalloc.is_tracing()
    try:
        if ours:
            tracemalloc.start(FRAMES)
        yield ours
    finally:
        if ours:
            tracemalloc.stop()
        _ONE_AT_A_TIME.release()


async def _wait(seconds: float) -> bool:
    """Returns after so many seconds, or true as soon as there is no more room."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK))
        if tracemalloc.get_tracemalloc_memory() > ROOM:
            return True
    return False


def _snapshot() -> tracemalloc.Snapshot:
    """Returns what tracemalloc knows. The garbage collector, which would go through each part of it, makes it ten times as slow."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return tracemalloc.take_snapshot()
    finally:
        if collects:
            gc.enable()


def _count(snapshot: tracemalloc.Snapshot, profile: Profile) -> None:
    """Adds the blocks of a snapshot to a profile. Runs in a thread, and has others go first where it can."""
    names = Names()
    for statistic in snapshot.statistics("traceback"):
        stack = _stack(statistic.traceback, names)
        if stack:
            profile.add(stack, statistic.count, statistic.size)
        time.sleep(0)  # gives the interpreter away, which a loop would else wait for


def _stack(traceback: tracemalloc.Traceback, names: Names) -> Stack:
    """Returns the stack of an allocation, the innermost frame first; none if tracing made it."""
    if traceback[-1].filename == tracemalloc.__file__ or any(frame.filename == __file__ for frame in traceback):
        return ()
    return tuple(names.place(frame.filename, frame.lineno) for frame in reversed(traceback))[:FRAMES]
