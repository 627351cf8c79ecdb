"""The profiler: which profiles there are, and that one is made at a time of each kind.

Above is AdminService; below are the collectors, which run for no longer than a caller waits for them.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.profiling.block import block
from gateway.profiling.cpu import cpu
from gateway.profiling.heap import allocs, heap
from gateway.profiling.mutex import mutex
from gateway.profiling.pprof import encode
from gateway.profiling.profile import Profile
from gateway.profiling.tasks import goroutine, threadcreate
from gateway.profiling.text import render

MOST_SECONDS: Final = 300.0
CMDLINE: Final = "cmdline"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of profile.

    Attributes:
        collect: Makes it, over so many seconds.
        seconds: Over how many unless somebody says; 0 for one that shows a moment.
        shares: What it must not run beside: the name of what both need.
        summary: What it shows.
    """

    collect: Callable[[float], Awaitable[Profile]]
    seconds: float
    shares: str
    summary: str


KINDS: Final[Mapping[str, Kind]] = {
    "allocs": Kind(allocs, 5.0, "memory", "what is allocated during the profile"),
    "block": Kind(block, 10.0, "block", "what holds the event loop up"),
    "goroutine": Kind(goroutine, 0.0, "goroutine", "where each task of the event loop and each thread stands"),
    "heap": Kind(heap, 5.0, "memory", "what is allocated during the profile and still there"),
    "mutex": Kind(mutex, 10.0, "mutex", "who waits for locks"),
    "profile": Kind(cpu, 30.0, "profile", "where all threads spend processor time"),
    "threadcreate": Kind(threadcreate, 0.0, "threadcreate", "where each thread stands"),
}
"""The profiles by their names, which are Go's."""


@dataclass(frozen=True, slots=True)
class Written:
    """A profile, ready to be sent.

    Attributes:
        content_type: What it is.
        data: Its bytes.
    """

    content_type: str
    data: bytes


class Profiler:
    """Makes profiles of this process."""

    def __init__(self, enabled: Callable[[], bool]) -> None:
        """Makes a profiler.

        Args:
            enabled: Returns whether it may be used now.
        """
        self._enabled = enabled
        self._under_way: set[str] = set()

    async def make(self, name: str, seconds: float | None, debug: int) -> Written:
        """Returns a profile.

        Args:
            name: The kind: one of `KINDS`, or `cmdline`.
            seconds: Over how many seconds; None for as many as is usual.
            debug: 0 for pprof's form, 1 or 2 for text.

        Raises:
            GatewayError: NOT_FOUND: profiles are off, or there is none of that name; CONFLICT: one is being made;
                INVALID_REQUEST: the rest is wrong.
        """
        if not self._enabled():
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_FOUND, "Profiles are off here. Whoever runs this gateway sets debug.pprof_enabled."
            )
        if name == CMDLINE:
            return Written("text/plain; charset=utf-8", "\0".join(cmdline(sys.argv)).encode("utf-8", "surrogateescape"))
        kind = KINDS.get(name)
        if kind is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_FOUND,
                f"There is no profile '{name[:64]}'. There are {', '.join([*KINDS, CMDLINE])}.",
                param="kind",
            )
        if seconds is not None and not 0 < seconds <= MOST_SECONDS:
            raise _invalid("seconds", f"must be above 0 and at most {MOST_SECONDS:.0f}")
        if debug not in {0, 1, 2}:
            raise _invalid("debug", "must be 0, 1 or 2")
        if kind.shares in self._under_way:
            raise GatewayError(
                ErrorKind.ERROR_KIND_CONFLICT,
                f"A profile '{name}', or one that needs the same, is being made. Ask again when it is done.",
            )
        self._under_way.add(kind.shares)
        try:
            profile = await kind.collect(kind.seconds if seconds is None else seconds)
        finally:
            self._under_way.discard(kind.shares)
        if debug:
            return Written("text/plain; charset=utf-8", render(profile).encode("utf-8", "replace"))
        return Written("application/octet-stream", encode(profile))


def cmdline(arguments: Sequence[str]) -> list[str]:
    """Returns how the process was started, without what may be a secret: the value of an option that is called a token or a key."""
    shown: list[str] = []
    hides = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_secret = name.startswith("-") and any(word in name.lower() for word in ("token", "key", "secret", "password"))
        shown.append("[REDACTED]" if hides else f"{name}=[REDACTED]" if is_secret and equals else argument)
        hides = is_secret and not equals
    return shown


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
