"""Stacks: of a frame, and of a task through whatever it awaits."""

import asyncio
import sys
from collections.abc import AsyncIterator, Generator

from gateway.profiling.stacks import DEPTH, stack_of_frame, stack_of_task


def names(stack: tuple[object, ...]) -> list[str]:
    return [getattr(frame, "name", "").rpartition(".")[2] for frame in stack]


async def waits(event: asyncio.Event) -> None:
    await event.wait()


async def yields(event: asyncio.Event) -> AsyncIterator[None]:
    await waits(event)
    yield


async def iterates(event: asyncio.Event) -> None:
    async for _ in yields(event):
        pass


class Awaitable:
    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __await__(self) -> Generator[None, None, None]:
        yield from waits(self._event).__await__()


async def awaits_an_object(event: asyncio.Event) -> None:
    await Awaitable(event)


async def test_a_tasks_stack_goes_from_the_innermost_await_outwards() -> None:
    event = asyncio.Event()
    tasks = [asyncio.ensure_future(wait(event)) for wait in (waits, iterates, awaits_an_object)]
    await asyncio.sleep(0)
    stacks = [names(stack_of_task(task)) for task in tasks]
    event.set()
    await asyncio.gather(*tasks)

    assert stacks == [
        ["wait", "waits"],
        ["wait", "waits", "yields", "iterates"],
        ["wait", "waits", "__await__", "awaits_an_object"],
    ]


async def test_a_task_that_is_over_has_no_stack() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task

    assert stack_of_task(task) == ()


def test_a_frames_stack_names_functions_with_their_modules_and_lines() -> None:
    frame = sys._getframe()
    stack = stack_of_frame(frame)

    assert stack[0].name == f"{__name__}.{frame.f_code.co_qualname}"
    assert stack[0].filename == __file__
    assert stack[0].start_line == frame.f_code.co_firstlineno < stack[0].line


def test_a_runaway_recursion_is_cut_at_its_outer_end() -> None:
    def recursive(depth: int) -> tuple[object, ...]:
        return recursive(depth - 1) if depth else stack_of_frame(sys._getframe())

    assert names(recursive(DEPTH)) == ["recursive"] * DEPTH
