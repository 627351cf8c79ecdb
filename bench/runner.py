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
from bench.processes import Child, Generator
from bench.report import Row
from bench.workloads import Workload

_IDLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that answers."""

    name: str
    port: int
    pid: int | None
    """The process whose CPU is its cost; None where that cannot be told."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grpc: bool = False
    path: str = "/v1/chat/completions"
    model: str = "{}"
    """What this gateway calls a model; `{}` stands for the mock's name of it."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    workloads: Sequence[Workload]
    rounds: int = 5
    seconds: float = 2.0
    """How long a phase is measured."""
    warmup_seconds: float = 0.5
    others: Sequence[Target] = ()
    """Gateways that were given by hand."""
    gateway: bool = True
    """Whether this project's gateway takes part."""
    mock_port: int = 0
    """Where the mock upstream listens, for gateways given by hand; 0 lets the kernel choose."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a run."""

    rows: Sequence[Row]
    """In the order of the workloads, and for each in the order of the targets."""
    idle_mb: float | None
    """The gateway's memory before any request, in MB."""
    spans: int | None
    """How many spans the gateway exported."""


async def run(plan: Plan) -> Result:
    """Carries out a plan, with a line of progress on standard error for each phase.

    Raises:
        StartError: A process did not come up.
        RefusedError: A phase could not be measured.
    """
    found: dict[Workload, list[Row]] = {}
    idle_mb: float | None = None
    collector: Child | None = None
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        mock = await stack.enter_async_context(processes.child("bench.mock", "--port", str(plan.mock_port)))
        targets = await _yardsticks(stack, plan, mock)
        if plan.gateway:
            collector = await stack.enter_async_context(processes.child("bench.collector"))
            token = f"ts-{secrets.token_urlsafe(32)}"
            pid, rest, grpc = await stack.enter_async_context(
                processes.twinspan(directory, mock.facts["port"], collector.facts["grpc_port"], token)
            )
            headers = {"authorization": f"Bearer {token}"}
            targets += [Target(report.GATEWAY, rest, pid, headers), Target(report.GATEWAY, grpc, pid, headers, grpc=True)]
            await asyncio.sleep(_IDLE_SECONDS)
            idle_mb = proc.memory(pid).rss / 1024**2
        targets += plan.others
        http = await stack.enter_async_context(processes.generator("bench.load"))
        rpc = await stack.enter_async_context(processes.generator("bench.grpc_load"))
        # Crowds come first: memory that other workloads have left behind would hide what a stream takes.
        for workload in sorted(plan.workloads, key=lambda workload: workload.arrival_seconds is None):
            chosen = [target for target in targets if target.grpc == workload.grpc]
            rounds = await _measure(plan, workload, chosen, mock, rpc if workload.grpc else http)
            others = [target.name for target in plan.others if target.grpc == workload.grpc]
            found[workload] = [report.row(workload, target.name, rounds, others) for target in chosen]
    spans = collector.parting.get("spans") if collector else None
    return Result([row for workload in plan.workloads for row in found[workload]], idle_mb, spans)


def facts(plan: Plan, result: Result, command: str) -> dict[str, Any]:
    """Returns what a reader of the figures must know of the run."""
    return {
        "command": command,
        "python": platform.python_version(),
        "processor": _processor(),
        "rounds": plan.rounds,
        "seconds_a_phase": plan.seconds,
        "idle_mb": result.idle_mb,
        "exported_spans": result.spans,
    }


async def _yardsticks(stack: AsyncExitStack, plan: Plan, mock: Child) -> list[Target]:
    """Starts what the gateways are compared with, as far as the plan's workloads need it."""
    found = []
    if any(not workload.grpc for workload in plan.workloads):
        upstream = f"http://127.0.0.1:{mock.facts['port']}"
        floor = await stack.enter_async_context(processes.child("bench.floor", "--upstream", upstream))
        found.append(Target(report.DIRECT, mock.facts["port"], mock.pid))
        found.append(Target(report.BASELINE, floor.facts["port"], floor.pid))
    if any(workload.grpc for workload in plan.workloads):
        echo = await stack.enter_async_context(processes.child("bench.echo"))
        found.append(Target(report.GRPC_BASELINE, echo.facts["grpc_port"], echo.pid, grpc=True))
    return found


async def _measure(
    plan: Plan, workload: Workload, targets: Sequence[Target], mock: Child, generator: Generator
) -> Sequence[Mapping[str, Outcome]]:
    rounds = []
    # What a crowd takes shows best in a process that had none before, and its streams are many enough for one round.
    count = plan.rounds if workload.arrival_seconds is None else 1
    for number in range(count):
        outcomes: dict[str, Outcome] = {}
        # Every second round goes the other way, so that none always follows the same one.
        for target in targets if number % 2 == 0 else reversed(targets):
            outcomes[target.name] = await generator.measure(_phase(plan, workload, target, mock))
            _progress(workload, target, number + 1, count, outcomes[target.name])
        rounds.append(outcomes)
    return rounds


def _phase(plan: Plan, workload: Workload, target: Target, mock: Child) -> Phase:
    return Phase(
        port=target.port,
        path=f"{target.path.removesuffix('/chat/completions')}/embeddings" if workload.kind == "embedding" else target.path,
        headers=dict(target.headers),
        model=target.model.replace("{}", workload.model),
        kind=workload.kind,
        chunks=workload.chunks,
        connections=workload.connections,
        seconds=plan.seconds,
        warmup_seconds=plan.warmup_seconds,
        arrival_seconds=workload.arrival_seconds,
        gateway_pid=target.pid,
        # The mock is the target itself where there is no gateway, and is not asked where there is only the echo.
        other_pids={} if target.pid == mock.pid or target.name == report.GRPC_BASELINE else {"mock": mock.pid},
    )


def _progress(workload: Workload, target: Target, number: int, rounds: int, outcome: Outcome) -> None:
    cost = report.cpu_us(outcome, workload)
    said = "" if cost is None else f"{cost:9.1f} µs a {workload.unit}"
    failed = f", failed: {outcome.failures}" if outcome.failures else ""
    place = f"{workload.name} {workload.title}, {workload.connections:,} open, round {number} of {rounds}"
    print(f"{place}: {target.name:10} {said}{failed}", file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
