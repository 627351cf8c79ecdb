"""Takes samples for as long as somebody waits for them: by a thread of its own, or by interrupting the main thread.

A thread must get the interpreter's lock for each sample. A busy event loop gives the lock up and takes it back within
microseconds, again and again, so such a thread may starve just when there is most to see. A signal interrupts the main thread
instead. Above are the collectors.
"""

import asyncio
import random
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType


@asynccontextmanager
async def sampled(take: Callable[[], None], seconds_between: float, name: str) -> AsyncIterator[None]:
    """Has `take` called in a thread of its own, again and again, until the context is left. The thread has ended then.

    Args:
        take: Takes a sample.
        seconds_between: How long to wait between two, on average; the pauses vary by a half, so as not to keep step with anything.
        name: The thread's name.

    Raises:
        Exception: What `take` has raised, when the context is left.
    """
    stop = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        try:
            while not stop.wait(seconds_between * random.uniform(0.5, 1.5)):  # noqa: S311 (jitter, not a secret)
                take()
        except Exception as error:  # noqa: BLE001 (it is raised where the samples are wanted)
            failures.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # It ends within a sample; a thread that waits for it keeps the event loop free.
        await asyncio.shield(asyncio.to_thread(thread.join))
    if failures:
        raise failures[0]


@asynccontextmanager
async def interrupted(take: Callable[[FrameType | None], None], processor_seconds: float) -> AsyncIterator[None]:
    """Has `take` called with the main thread's frame each time that the process has used so much processor time.

    It must be entered in the main thread, and not twice at a time.

    Raises:
        Exception: What `take` has raised, when the context is left.
    """
    failures: list[Exception] = []

    def handle(_number: int, frame: FrameType | None) -> None:
        try:
            take(frame)
        except Exception as error:  # noqa: BLE001 (it is raised where the samples are wanted, and never in what was interrupted)
            failures.append(error)
            signal.setitimer(signal.ITIMER_PROF, 0)

    before = signal.signal(signal.SIGPROF, handle)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, processor_seconds, processor_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN if before is signal.SIG_DFL or before is None else before)
    if failures:
        raise failures[0]


def can_interrupt() -> bool:
    """Tells whether the caller is the main thread of a system that has such signals."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGPROF")
