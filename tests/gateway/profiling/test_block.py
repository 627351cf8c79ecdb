"""Block profiles: each stall of the loop under the function that caused it, and nothing invented."""

import asyncio
import threading
import time

import pytest

from gateway.profiling.block import block
from gateway.profiling.profile import Profile


def planted_stall(seconds: float) -> None:
    time.sleep(seconds)


def planted_pair() -> None:
    planted_stall(0.15)
    another_stall()


def another_stall() -> None:
    time.sleep(0.15)


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "profile-block"]


async def begun(seconds: float) -> asyncio.Task[Profile]:
    """Begins a profile, and returns when the loop has beaten for a while."""
    profiling = asyncio.create_task(block(seconds))
    await asyncio.sleep(0.03)
    return profiling


def under(profile: Profile, function: str) -> list[tuple[int, int]]:
    """Returns the values of the stacks that have a function in them."""
    return [
        (times, delay)
        for (stack, _), (times, delay) in profile.samples.items()
        if any(frame.name == f"{__name__}.{function}" for frame in stack)
    ]


async def test_a_stall_is_found_under_the_name_of_its_function_with_its_length() -> None:
    profiling = await begun(0.3)
    planted_stall(0.2)
    profile = await profiling

    found = under(profile, "planted_stall")
    assert sum(times for times, _ in found) == 1
    assert sum(delay for _, delay in found) >= 150e6


async def test_the_innermost_frame_comes_first() -> None:
    profiling = await begun(0.3)
    planted_stall(0.2)
    profile = await profiling

    assert f"{__name__}.planted_stall" in {stack[0].name for stack, _ in profile.samples}


async def test_a_stall_of_two_functions_is_one_and_is_shared_between_them() -> None:
    profiling = await begun(0.4)
    planted_pair()
    profile = await profiling

    both, first, second = under(profile, "planted_pair"), under(profile, "planted_stall"), under(profile, "another_stall")
    assert sum(times for times, _ in both) == 1
    assert sum(delay for _, delay in both) >= 250e6
    assert first
    assert second
    assert all(delay > 0 for _, delay in first + second)


async def test_waiting_is_no_stall() -> None:
    profiling = await begun(0.3)
    await asyncio.sleep(0.2)
    profile = await profiling

    assert not under(profile, "test_waiting_is_no_stall")


async def test_a_stall_before_it_began_is_not_in_it() -> None:
    planted_stall(0.1)
    profile = await block(0.05)

    assert not under(profile, "planted_stall")


async def test_nothing_is_left_behind() -> None:
    profiling = await begun(0.1)
    assert watchdogs()
    await profiling

    assert not watchdogs()


async def test_nothing_is_left_behind_when_it_is_cancelled() -> None:
    profiling = await begun(60)
    profiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await profiling

    assert not watchdogs()


async def test_the_loop_has_no_timer_left() -> None:
    profiling = await begun(0.05)
    await profiling
    loop = asyncio.get_running_loop()

    left = [handle for handle in vars(loop)["_scheduled"] if not handle.cancelled()]
    assert "_beat" not in repr(left)
