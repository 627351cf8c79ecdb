"""A thread that takes samples for as long as somebody waits for them. Above are the collectors that sample."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


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
