"""Mutex profiles: who waits for locks, of asyncio and of threads, and who waits for something else."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gateway.profiling.mutex import mutex
from gateway.profiling.profile import Profile

Wait = Callable[[], Awaitable[object]]


def under(profile: Profile, function: str) -> list[tuple[int, int]]:
    """Returns the values of the stacks whose innermost frame is a function of this file."""
    return [
        (times, delay) for (stack, _), (times, delay) in profile.samples.items() if stack[0].name.endswith(f"{__name__}.{function}")
    ]


async def planted_lock(lock: asyncio.Lock | asyncio.Semaphore) -> None:
    async with lock:
        pass


async def planted_outer(lock: asyncio.Lock) -> None:
    await planted_lock(lock)


async def planted_notice(condition: asyncio.Condition) -> None:
    async with condition:
        await condition.wait()


async def planted_event(event: asyncio.Event) -> None:
    await event.wait()


async def planted_get(items: asyncio.Queue[None]) -> None:
    await items.get()


async def profile_while(*waits: Wait, seconds: float = 0.3) -> Profile:
    """Profiles while tasks wait, which are cancelled at the end."""
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    await asyncio.sleep(0)
    profile = await mutex(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return profile


async def test_a_wait_for_a_lock_counts_once_and_for_as_long_as_the_profile_saw_it() -> None:
    lock = asyncio.Lock()
    async with lock:
        profile = await profile_while(partial(planted_lock, lock))

    [(times, delay)] = under(profile, "planted_lock")
    assert times == 1
    assert 0.1e9 <= delay <= profile.duration_ns


async def test_each_waiter_counts() -> None:
    lock = asyncio.Lock()
    async with lock:
        profile = await profile_while(*[partial(planted_lock, lock)] * 5)

    assert [times for times, _ in under(profile, "planted_lock")] == [5]


async def test_more_waiters_than_one_turn_looks_at_are_all_seen() -> None:
    lock = asyncio.Lock()
    async with lock:
        profile = await profile_while(*[partial(planted_lock, lock)] * 250, seconds=1)

    assert sum(times for times, _ in under(profile, "planted_lock")) == 250


async def test_the_stack_is_that_of_the_waiter_without_the_lock_itself() -> None:
    lock = asyncio.Lock()
    async with lock:
        profile = await profile_while(partial(planted_outer, lock))

    [(stack, _)] = profile.samples
    assert [frame.name.removeprefix(f"{__name__}.") for frame in stack] == ["planted_lock", "planted_outer"]


async def test_a_semaphore_is_a_lock() -> None:
    profile = await profile_while(partial(planted_lock, asyncio.Semaphore(0)))

    assert [times for times, _ in under(profile, "planted_lock")] == [1]


async def test_a_condition_that_was_notified_waits_for_its_lock() -> None:
    condition = asyncio.Condition()
    waiting = asyncio.create_task(planted_notice(condition))
    await asyncio.sleep(0)
    async with condition:
        condition.notify()
        profile = await mutex(0.2)
    await waiting

    assert [times for times, _ in under(profile, "planted_notice")] == [1]


async def test_waiting_for_a_notice_an_event_or_an_item_is_no_wait_for_a_lock() -> None:
    profile = await profile_while(
        partial(planted_notice, asyncio.Condition()),
        partial(planted_event, asyncio.Event()),
        partial(planted_get, asyncio.Queue()),
        seconds=0.1,
    )

    assert not profile.samples


async def profile_thread(target: Callable[[], object], let_go: Callable[[], object]) -> Profile:
    """Profiles while a thread waits, which is let go at the end."""
    thread = threading.Thread(target=target)
    thread.start()
    try:
        return await mutex(0.3)
    finally:
        let_go()
        thread.join()


def planted_with(lock: threading.Semaphore | threading.Condition) -> None:
    with lock:
        pass


def planted_item(items: queue.Queue[None]) -> None:
    items.get()


def planted_wait(event: threading.Event) -> None:
    event.wait()


async def test_a_thread_that_waits_for_a_semaphore_is_seen() -> None:
    semaphore = threading.Semaphore(0)
    profile = await profile_thread(lambda: planted_with(semaphore), semaphore.release)

    [(times, delay)] = under(profile, "planted_with")
    assert times == 1
    assert 0.05e9 <= delay <= profile.duration_ns


async def test_a_thread_that_waits_for_the_lock_of_a_condition_is_seen() -> None:
    condition = threading.Condition()
    condition.acquire()
    profile = await profile_thread(lambda: planted_with(condition), condition.release)

    assert [times for times, _ in under(profile, "planted_with")] == [1]


async def test_a_thread_that_waits_for_an_event_or_an_item_waits_for_no_lock() -> None:
    event, items = threading.Event(), queue.Queue[None]()
    of_event = await profile_thread(lambda: planted_wait(event), event.set)
    of_queue = await profile_thread(lambda: planted_item(items), lambda: items.put(None))

    assert not under(of_event, "planted_wait")
    assert "planted_item" not in repr(of_queue.samples)


async def test_nothing_is_left_behind_when_it_is_cancelled() -> None:
    profiling = asyncio.create_task(mutex(60))
    await asyncio.sleep(0.02)
    assert "profile-mutex" in {thread.name for thread in threading.enumerate()}

    profiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await profiling

    assert "profile-mutex" not in {thread.name for thread in threading.enumerate()}
    left = [handle for handle in vars(asyncio.get_running_loop())["_scheduled"] if not handle.cancelled()]
    assert "_look" not in repr(left)
