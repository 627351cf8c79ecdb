"""`python -m bench.workers`: two workers beside one, for W1; see docs/performance.md.

Gateway, mock and load generator share the two processors, so that two workers never have both to themselves. Three figures, each of
which says something else: what a request costs in all processes of the gateway, how many requests a second come through as it is,
and how many come through one worker if the whole chain has only one processor, which is what the second one is worth.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import proc, processes
from bench.behaviour import UNARY
from bench.phase import Outcome, Phase
from bench.processes import Child

_WARMUP_SECONDS = 0.5


@dataclass
class _Setting:
    """A way to serve.

    Attributes:
        name: What it is called.
        port: Where its gateway listens.
        pid: The gateway's process.
        processors: Which the whole chain may use.
        rates: Requests a second, by round.
        costs: CPU of the gateway for a request, in µs, by round.
        others: CPU of mock and load generator for a request, in µs, by round.
    """

    name: str
    port: int
    pid: int
    processors: set[int]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        if outcome.failures:
            raise processes.RefusedError(f"{self.name}: {outcome.failures}")
        self.rates.append(outcome.responses / outcome.seconds)
        self.costs.append(outcome.cpu_seconds["gateway"] / outcome.responses * 1e6)
        self.others.append((outcome.cpu_seconds["mock"] + outcome.cpu_seconds["load"]) / outcome.responses * 1e6)


async def run(rounds: int, seconds: float, connections: int) -> Sequence[_Setting]:
    """Measures all settings in turn, round after round, every second one backwards."""
    everything = os.sched_getaffinity(0)
    token = f"ts-{secrets.token_urlsafe(32)}"
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        mock = await stack.enter_async_context(processes.child("bench.mock", "--port", "0"))
        collector = await stack.enter_async_context(processes.child("bench.collector"))
        load = await stack.enter_async_context(processes.generator("bench.load"))
        ports = {}
        for count in (1, 2):
            (place := directory / str(count)).mkdir()
            started = processes.twinspan(place, mock.facts["port"], collector.facts["grpc_port"], token, count)
            pid, rest, _ = await stack.enter_async_context(started)
            ports[count] = (rest, pid)
        settings = [
            _Setting("one worker, one processor for all", *ports[1], {min(everything)}),
            _Setting("one worker", *ports[1], everything),
            _Setting("two workers", *ports[2], everything),
        ]
        for number in range(rounds):
            for setting in settings if number % 2 == 0 else reversed(settings):
                for one in (setting.pid, mock.pid, load.pid):
                    _pin(one, setting.processors)
                setting.note(await load.measure(_phase(setting, seconds, connections, token, mock)))
        return settings


def table(settings: Sequence[_Setting]) -> str:
    """Returns the figures as a table: medians, and ratios that were taken within a round."""
    two = settings[-1]
    lines = [
        "| | requests a second | two workers manage | gateway, CPU µs a request | requests for a CPU second | load and mock, µs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for setting in settings:
        ratios = [mine / its for mine, its in zip(two.rates, setting.rates, strict=True)]
        ratio = "" if setting is two else f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        cost = statistics.median(setting.costs)
        figures = (f"{statistics.median(setting.rates):.0f}", ratio, f"{cost:.0f}", f"{1e6 / cost:.0f}")
        lines.append(f"| {setting.name} | {' | '.join(figures)} | {statistics.median(setting.others):.0f} |")
    return "\n".join(lines)


def _phase(setting: _Setting, seconds: float, connections: int, token: str, mock: Child) -> Phase:
    headers: Mapping[str, str] = {"authorization": f"Bearer {token}"}
    return Phase(
        port=setting.port,
        headers=dict(headers),
        model=UNARY,
        kind="small",
        connections=connections,
        seconds=seconds,
        warmup_seconds=_WARMUP_SECONDS,
        gateway_pid=setting.pid,
        other_pids={"mock": mock.pid},
    )


def _pin(pid: int, processors: set[int]) -> None:
    """Lets a process and its descendants, all of their threads, use these processors alone."""
    for member in proc.family(pid):
        for task in Path(f"/proc/{member}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description="Two workers beside one.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each setting is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each time (default: 3)")
    parser.add_argument("--connections", type=int, default=32, help="how many clients ask at a time (default: 32)")
    given = parser.parse_args()
    print(table(asyncio.run(run(given.rounds, given.seconds, given.connections))))


if __name__ == "__main__":
    main()
