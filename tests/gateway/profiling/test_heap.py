"""Memory profiles: what was allocated meanwhile, by the functions that did it; and tracemalloc is off again, whatever happens."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.profiling import heap as heap_module
from gateway.profiling.heap import allocs, heap
from gateway.profiling.profile import Profile

MEGABYTE = 1 << 20

Collect = Callable[[float], Awaitable[Profile]]


@pytest.fixture(autouse=True)
async def off_afterwards() -> AsyncIterator[None]:
    yield
    assert not tracemalloc.is_tracing()


async def profile_of(collect: Collect, work: Callable[[], object]) -> Profile:
    """Profiles while `work` is done once, and keeps what it returns until the profile is there."""
    profiling = asyncio.ensure_future(collect(0.1))
    await asyncio.sleep(0)
    assert tracemalloc.is_tracing()
    kept = work()
    profile = await profiling
    del kept
    return profile


def values_under(profile: Profile, function: str) -> list[list[int]]:
    return [values for (stack, _), values in profile.samples.items() if any(function in frame.name for frame in stack)]


def planted_hoard() -> list[bytearray]:
    return [bytearray(MEGABYTE) for _ in range(3)]


def planted_waste() -> None:
    planted_hoard()


@pytest.mark.parametrize("collect", [heap, allocs])
async def test_what_is_still_alive_is_there_with_its_number_its_size_and_its_function(collect: Collect) -> None:
    profile = await profile_of(collect, planted_hoard)

    found = values_under(profile, f"{__name__}.planted_hoard")
    assert sum(count for count, _ in found) >= 3
    assert sum(size for _, size in found) >= 3 * MEGABYTE


async def test_what_was_freed_meanwhile_is_not_in_it() -> None:
    profile = await profile_of(heap, planted_waste)

    assert sum(size for _, size in values_under(profile, "planted_waste")) < MEGABYTE


async def test_each_kind_says_what_its_values_are_and_allocs_says_what_it_misses() -> None:
    in_use, allocated = await heap(0), await allocs(0)

    assert [(kind.type, kind.unit) for kind in in_use.value_types] == [("inuse_objects", "count"), ("inuse_space", "bytes")]
    assert [(kind.type, kind.unit) for kind in allocated.value_types] == [("alloc_objects", "count"), ("alloc_space", "bytes")]
    assert any("freed" in comment for comment in allocated.comments)


async def test_stacks_begin_at_the_innermost_frame_and_are_bounded() -> None:
    def recursive(depth: int) -> object:
        return recursive(depth - 1) if depth else planted_hoard()

    profile = await profile_of(heap, lambda: recursive(50))

    deep = [stack for stack, _ in profile.samples if sum("recursive" in frame.name for frame in stack) > 1]
    assert deep
    assert all(len(stack) <= 24 and "planted_hoard" in stack[0].name for stack in deep)


async def test_tracing_itself_is_not_in_it() -> None:
    profile = await profile_of(heap, planted_hoard)

    files = {frame.filename for stack, _ in profile.samples for frame in stack}
    assert not files & {tracemalloc.__file__, heap_module.__file__}


async def test_a_second_one_at_the_same_time_is_refused_and_a_later_one_is_not() -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(heap(0.05))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError) as refused:
            await allocs(0)
    assert refused.value.kind == ErrorKind.ERROR_KIND_CONFLICT
    assert first.result().duration_ns > 0

    await allocs(0)


async def test_a_cancelled_one_leaves_nothing_on_and_lets_the_next_begin() -> None:
    profiling = asyncio.create_task(heap(60))
    await asyncio.sleep(0)
    assert tracemalloc.is_tracing()

    profiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await profiling

    assert not tracemalloc.is_tracing()
    await heap(0)


async def test_tracing_that_was_on_stays_on_and_the_profile_says_so() -> None:
    tracemalloc.start()
    try:
        profile = await heap(0)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert any("already" in comment for comment in profile.comments)


async def test_so_many_blocks_that_they_would_hold_up_the_loop_end_it_early() -> None:
    profiling = asyncio.create_task(heap(50))
    await asyncio.sleep(0)
    kept = [[index] for index in range(150_000)]
    profile = await profiling

    del kept
    assert any("early" in comment for comment in profile.comments)
    assert profile.duration_ns < 50e9
