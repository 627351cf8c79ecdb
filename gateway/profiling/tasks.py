"""Where everything stands at this moment: each task of the event loop with what it awaits, and each thread.

Go's name for it is the goroutine profile. Threads alone are `threadcreate`: who made a thread, nobody knows afterwards.
"""

import asyncio
import sys
import threading
import time

from gateway.profiling.profile import Profile, ValueType
from gateway.profiling.stacks import stack_of_frame, stack_of_task


async def goroutine(_seconds: float = 0.0) -> Profile:
    """Returns where each task and each thread stands."""
    profile = _moment("goroutine")
    for task in asyncio.all_tasks():
        profile.add(stack_of_task(task), 1, labels=(("task", task.get_name()),))
    _add_threads(profile)
    return profile


async def threadcreate(_seconds: float = 0.0) -> Profile:
    """Returns where each thread stands."""
    profile = _moment("threadcreate")
    _add_threads(profile)
    return profile


def _moment(name: str) -> Profile:
    return Profile((ValueType(name, "count"),), ValueType(name, "count"), 1, time.time_ns())


def _add_threads(profile: Profile) -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 (there is no other way to see all threads)
        profile.add(stack_of_frame(frame), 1, labels=(("thread", names.get(ident, str(ident))),))
