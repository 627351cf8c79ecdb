"""One measured phase: what the runner asks of a load generator, what it gets back, and the pipe between the two.

A load generator is a process that reads a `Phase` a line from its standard input and answers each with an `Outcome`, or with a
`Refusal`, on its standard output.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import msgspec

from bench import child


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, how much at a time, and for how long."""

    port: int
    """On the loopback."""
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    """On top of what every JSON request has."""
    model: str
    """The model's name, as this gateway wants it."""
    kind: str
    """`small`: 200 bytes in; `agent`: 200 KB in; `embedding`: a text of 200 bytes to be embedded."""
    chunks: int = 0
    """Chunks with text that an answer has; 0 for an answer in one piece."""
    connections: int
    seconds: float = 0.0
    """How long each connection goes on asking, while it is measured. Unused for a crowd."""
    warmup_seconds: float = 0.0
    """How long it does so before."""
    arrival_seconds: float | None = None
    """For a crowd: every connection asks once, and they arrive evenly over this time. None: they ask again and again."""
    deadline_seconds: float = 60.0
    """After which whatever is under way has failed."""
    gateway_pid: int | None = None
    """The process whose CPU and memory are measured."""
    other_pids: dict[str, int] = {}
    """Processes whose CPU is to be told as well, by name."""


class Spread(msgspec.Struct, frozen=True):
    """A distribution of times, in milliseconds."""

    p50: float
    p90: float
    p99: float
    highest: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a phase. Counts are of the measured time only, but failures of all of it."""

    seconds: float
    responses: int
    """Complete and right."""
    chunks: int
    """Chunks with text."""
    messages: int
    """Messages of gRPC streams, each of which may hold several chunks."""
    failures: dict[str, int]
    """Requests that failed, by what was wrong."""
    latency: Spread | None
    """From the request's first byte to the answer's last."""
    first: Spread | None
    """From the request's first byte to the first event's first; for a crowd the time to connect is in it."""
    cpu_seconds: dict[str, float]
    """By process: `gateway`, `load` and the phase's `other_pids`."""
    foreign_seconds: float
    """CPU that this machine spent on other processes than these, or that its host took from it."""
    rss_before: int = 0
    """Of the gateway, in bytes, before the first request."""
    rss_peak: int = 0
    pss_peak: int = 0
    most_open: int = 0
    """Streams of a crowd that were open at once."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a phase could not be measured at all."""

    refused: str


def spread(seconds: list[float]) -> Spread | None:
    """Returns the distribution of `seconds`, or None if there are none."""
    if not seconds:
        return None
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

    return Spread(at(0.5), at(0.9), at(0.99), at(1.0))


async def serve(measure: Callable[[Phase], Awaitable[Outcome]]) -> None:
    """Measures phase after phase until the standard input ends."""
    child.ready()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer: Outcome | Refusal
        try:
            answer = await measure(msgspec.json.decode(line, type=Phase))
        except* (OSError, msgspec.MsgspecError) as errors:
            answer = Refusal("; ".join(str(error) for error in errors.exceptions))
        print(msgspec.json.encode(answer).decode(), flush=True)
