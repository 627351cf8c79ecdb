"""Stacks of what runs and of what waits: a thread's frames, and the chain of awaits of a task. Pure apart from reading frames.

A thread that runs moves on while its frames are read from another: such a stack is right but for the last steps.
"""

import asyncio
import gc
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, FrameType
from typing import Any, TypeAlias

from gateway.profiling.profile import Frame, Stack

Places: TypeAlias = tuple[tuple[int, int], ...]
"""A stack as `FrameWalk` remembers it."""

DEPTH = 128
"""The most frames of a stack that are kept, the innermost ones: a runaway recursion makes no profile of gigabytes."""

# What C code puts between a coroutine and what it awaits, without saying what that is. The garbage collector knows.
_WRAPPERS = frozenset({"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})


def stack_of_frame(frame: FrameType | None) -> Stack:
    """Returns the stack from a frame outwards, the innermost first."""
    places: list[Frame] = []
    while frame is not None and len(places) < DEPTH:
        places.append(place_of(frame))
        frame = frame.f_back
    return tuple(places)


class FrameWalk:
    """Walks stacks again and again at little cost: places are remembered as numbers, and told as frames at the end.

    Hashing a code object reads all of it, so what is told apart is its address; it is kept, so that no other one gets that address.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], tuple[CodeType, int, str]] = {}

    def walk(self, frame: FrameType) -> Places:
        """Returns the places of a frame's stack, the innermost first."""
        places = self._places
        found: list[tuple[int, int]] = []
        below: FrameType | None = frame
        while below is not None and len(found) < DEPTH:
            code = below.f_code
            key = (id(code), below.f_lasti)
            if key not in places:
                places[key] = (code, below.f_lineno or 0, below.f_globals.get("__name__", ""))
            found.append(key)
            below = below.f_back
        return tuple(found)

    def stack(self, places: Places) -> Stack:
        """Returns the stack at these places."""
        return tuple(Frame.of(*self._places[place]) for place in places)


def stack_of_task(task: asyncio.Task[Any]) -> Stack:
    """Returns what a task waits in, the innermost first; of the task that runs right now, only its first function is known."""
    places = [place_of(frame) for frame in frames_of_task(task)]
    return tuple(reversed(places[-DEPTH:]))


def frames_of_task(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yields the frames of a task's chain of awaits, the outermost first."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame, awaited = _step(awaited)
        if frame is not None:
            yield frame


def place_of(frame: FrameType) -> Frame:
    """Returns where a frame is."""
    return Frame.of(frame.f_code, frame.f_lineno, frame.f_globals.get("__name__") or "")


def _step(awaited: Any) -> tuple[FrameType | None, Any]:
    """Returns the frame of something that is awaited, and what it awaits in turn. Cython's coroutines have the same attributes."""
    if hasattr(awaited, "cr_frame"):
        return awaited.cr_frame, awaited.cr_await
    if hasattr(awaited, "ag_frame"):
        return awaited.ag_frame, awaited.ag_await
    if hasattr(awaited, "gi_frame"):
        return awaited.gi_frame, awaited.gi_yieldfrom
    if type(awaited).__name__ not in _WRAPPERS:
        return None, None
    inside = gc.get_referents(awaited)
    generators = [item for item in inside if isinstance(item, AsyncGeneratorType)]
    return None, next(iter(generators or inside), None)
