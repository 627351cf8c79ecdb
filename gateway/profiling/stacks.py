"""Stacks of what runs and of what waits: threads by their frames, tasks by the chain of what they await.

Above are the collectors.
"""

import asyncio
import gc
from types import CodeType, FrameType
from typing import Any, Final, TypeAlias

from gateway.profiling.profile import Frame, Stack

Places: TypeAlias = tuple[tuple[int, int], ...]
"""A stack as `FrameWalk` remembers it."""

_DEEPEST: Final = 128
"""How many frames of a stack are kept, the innermost ones."""

_WRAPPERS: Final = frozenset({"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})
"""Awaitables that stand for another one, which only the garbage collector knows."""


def stack_of_frame(frame: FrameType | None) -> Stack:
    """Returns the stack of a frame."""
    frames: list[Frame] = []
    while frame is not None and len(frames) < _DEEPEST:
        frames.append(_place(frame))
        frame = frame.f_back
    return tuple(frames)


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
        while below is not None and len(found) < _DEEPEST:
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


def stack_of_task(task: "asyncio.Task[Any]") -> Stack:
    """Returns the stack of a task: what it awaits, what that awaits, and so on. Of one that runs now, only the outermost part."""
    frames: list[Frame] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(frames) < _DEEPEST:
        frame, below = _look(awaited)
        if frame is not None:
            frames.append(_place(frame))
        awaited = below
    return tuple(reversed(frames))


def _place(frame: FrameType) -> Frame:
    return Frame.of(frame.f_code, frame.f_lineno, frame.f_globals.get("__name__", ""))


def _look(awaited: Any) -> tuple[FrameType | None, Any]:
    """Returns the frame of a coroutine, a generator or their like, and what it awaits."""
    for kind, below in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaited, f"{kind}_frame", None)
        if frame is not None:
            return (frame if isinstance(frame, FrameType) else None), getattr(awaited, below, None)
    if type(awaited).__name__ in _WRAPPERS:
        for referred in gc.get_referents(awaited):
            if any(getattr(referred, name, None) is not None for name in ("cr_frame", "gi_frame", "ag_frame")):
                return None, referred
    return None, None
