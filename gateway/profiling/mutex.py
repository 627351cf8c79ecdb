"""Who waits for locks: tasks for those of asyncio, seen from the loop, and threads for those of `threading`, seen from a thread.

Nothing is wrapped: a wait is known by the code at the end of a stack, so that locks of libraries are seen like the gateway's.
"""

import asyncio
import time

from gateway.profiling.profile import Profile, ValueType
from gateway.profiling.task_locks import TaskLocks
from gateway.profiling.thread_locks import ThreadLocks
from gateway.profiling.waits import LOOK, Waits

_COMMENTS = (
    f"Waits for locks, sampled every {LOOK * 1000:.0f} ms, and less often where that takes long; a shorter wait may not be seen.",
    "Tasks: Lock, Semaphore and a Condition's lock, of asyncio. Events and queues are no locks.",
    "Threads: Semaphore, and a Condition's lock that `with` takes, or `wait` for a plain Lock.",
    "No waits of threads for a bare Lock or RLock: they cannot be told from having just got it. The block profile has the loop's.",
)


async def mutex(seconds: float) -> Profile:
    """Returns the waits for locks during so many seconds: how many, and how long, by the stack that waits."""
    profile = Profile(
        (ValueType("contentions", "count"), ValueType("delay", "nanoseconds")),
        ValueType("delay", "nanoseconds"),
        period=round(LOOK * 1e9),
        started_ns=time.time_ns(),
        comments=_COMMENTS,
    )
    began = time.monotonic_ns()
    tasks, threads = Waits(time.monotonic()), Waits(time.monotonic())
    with TaskLocks(asyncio.get_running_loop(), tasks), ThreadLocks(threads):
        await asyncio.sleep(seconds)
    profile.duration_ns = time.monotonic_ns() - began
    tasks.write(profile)
    threads.write(profile)
    return profile
