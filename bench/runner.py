"""A run: starts what is needed, has each workload measured for every target in turn, round after round, and reports.

The machine's speed drifts, by a factor of two on shared ones, so targets take turns within a round and only ratios within one round
are compared.
"""

import asyncio
import dataclasses
import platform
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import proc, processes, report
from bench.phase import Outcome, Phase
from bench.processes import Generator
from bench.report import Row
from bench.workloads import Workload

_IDLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that answers."""

    name: str
    port: int
    pid: int | None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grpc: bool = False
    path: str = "/v1/chat/completions"
    prefix: str = ""
    """What this gateway wants before a model's name."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    workloads: Sequence[Workload]
    rounds: int
    seconds: float
    warmup_seconds: float
    others: Sequence[Target] = ()
    gateway: bool = True
    """Whether this project's gateway takes part."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a run."""

    rows: Sequence[Row]
    idle_mb: float | None
    """The gateway's memory before any request, in MB."""


async def run(plan: Plan) -> Result:
    """Carries out a plan, with a line of progress on standard error for each phase."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        mock_pid, mock = await stack.enter_async_context(processes.child("bench.mock"))
        upstream = f"http://127.0.0.1:{mock['port']}"
        floor_pid, floor = await stack.enter_async_context(processes.child("bench.floor", "--upstream", upstream))
        echo_pid, echo = await stack.enter_async_context(processes.child("bench.echo"))
        targets = [
            Target("direct", mock["port"], mock_pid),
            Target(report.BASELINE, floor["port"], floor_pid),
            Target(report.GRPC_BASELINE, echo["grpc_port"], echo_pid, grpc=True),
        ]
        idle_mb: float | None = None
        if plan.gateway:
            _, collector = await stack.enter_async_context(processes.child("bench.collector"))
            token = f"ts-{secrets.token_urlsafe(32)}"
            pid, rest, grpc = await stack.enter_async_context(
                processes.twinspan(directory, mock["port"], collector["grpc_port"], token)
            )
            headers = {"authorization": f"Bearer {token}"}
            targets += [Target("twinspan", rest, pid, headers), Target("twinspan", grpc, pid, headers, grpc=True)]
            await asyncio.sleep(_IDLE_SECONDS)
            idle_mb = proc.memory(pid).rss / 1024**2
        targets += plan.others
        http = await stack.enter_async_context(processes.generator("bench.load"))
        rpc = await stack.enter_async_context(processes.generator("bench.grpc_load"))
        rows: list[Row] = []
        for workload in plan.workloads:
            chosen = [target for target in targets if target.grpc == workload.grpc]
            rounds = await _measure(plan, workload, chosen, rpc if workload.grpc else http)
            rows += [report.row(workload, target.name, rounds) for target in chosen]
        return Result(rows, idle_mb)


def facts(plan: Plan, result: Result, command: str) -> dict[str, Any]:
    """Returns what a reader of the figures must know of the run."""
    return {
        "command": command,
        "python": platform.python_version(),
        "processor": _processor(),
        "rounds": plan.rounds,
        "seconds_a_phase": plan.seconds,
        "idle_mb": result.idle_mb,
    }


async def _measure(
    plan: Plan, workload: Workload, targets: Sequence[Target], generator: Generator
) -> Sequence[Mapping[str, Outcome]]:
    rounds = []
    crowd = workload.arrival_seconds is not None
    for number in range(1 if crowd else plan.rounds):
        outcomes: dict[str, Outcome] = {}
        # Every second round goes the other way, so that none always follows the same one.
        for target in targets if number % 2 == 0 else reversed(targets):
            outcomes[target.name] = await generator.measure(_phase(plan, workload, target))
            _progress(workload, target, number + 1, 1 if crowd else plan.rounds, outcomes[target.name])
        rounds.append(outcomes)
    return rounds


def _phase(plan: Plan, workload: Workload, target: Target) -> Phase:
    return Phase(
        port=target.port,
        path=target.path,
        headers=dict(target.headers),
        model=f"{target.prefix}{workload.model}",
        kind=workload.kind,
        chunks=workload.chunks,
        connections=workload.connections,
        seconds=plan.seconds,
        warmup_seconds=plan.warmup_seconds,
        arrival_seconds=workload.arrival_seconds,
        gateway_pid=target.pid,
    )


def _progress(workload: Workload, target: Target, number: int, rounds: int, outcome: Outcome) -> None:
    cost = report.cpu_us(outcome, workload)
    said = "" if cost is None else f"{cost:9.1f} µs a {workload.unit}"
    failed = f", failed: {outcome.failures}" if outcome.failures else ""
    place = f"{workload.name} {workload.title}, {workload.connections} connections, round {number} of {rounds}"
    print(f"{place}: {target.name:10} {said}{failed}", file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
