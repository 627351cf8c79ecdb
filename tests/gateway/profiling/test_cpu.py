"""The CPU profile outside a main thread, where nothing can be interrupted."""

import asyncio
import threading
import time

from gateway.profiling.cpu import cpu
from gateway.profiling.profile import Profile


def burn() -> None:
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        sum(range(1000))


def test_a_loop_in_another_thread_is_profiled_by_a_thread_which_ends_with_it() -> None:
    profiles: list[Profile] = []

    async def run() -> None:
        profiling = asyncio.create_task(cpu(1.0))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(burn)
        profiles.append(await profiling)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    thread.join(20)
    [profile] = profiles
    spent = sum(values[1] for (stack, _), values in profile.samples.items() if stack[0].name == f"{__name__}.burn")
    assert spent >= 200_000_000
    assert not any(found.name == "profile cpu" for found in threading.enumerate())
