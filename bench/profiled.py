"""What a CPU profile costs a loaded gateway: `python -m bench.profiled`; see docs/profiling.md.

The gateway answers small chats over 32 connections, by turns with a profile under way and without. Figures are its CPU for a
request.
"""

import argparse
import asyncio
import secrets
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from bench import child, processes, report
from bench.phase import Phase
from bench.processes import Generator
from bench.workloads import ALL, Workload

_SECONDS, _WARMUP_SECONDS = 3.0, 0.5
_SMALL_CHAT = next(workload for workload in ALL if (workload.name, workload.connections) == ("W1", 32))


async def _cost(generator: Generator, workload: Workload, pid: int, port: int, token: str) -> float:
    outcome = await generator.measure(
        Phase(
            port=port,
            headers={"authorization": f"Bearer {token}"},
            model=workload.model,
            kind=workload.kind,
            connections=workload.connections,
            seconds=_SECONDS,
            warmup_seconds=_WARMUP_SECONDS,
            gateway_pid=pid,
        )
    )
    cost = report.cpu_us(outcome, workload)
    assert cost is not None, outcome.failures
    return cost


async def _profiled_cost(generator: Generator, workload: Workload, pid: int, port: int, token: str) -> float:
    """Measures while a profile is made that begins before and ends after."""
    url = f"http://{child.HOST}:{port}/debug/pprof/profile?seconds={_SECONDS + _WARMUP_SECONDS + 2}"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        making = asyncio.create_task(client.get(url))
        await asyncio.sleep(0.3)
        cost = await _cost(generator, workload, pid, port, token)
        assert not making.done()
        (await making).raise_for_status()
    return cost


async def _run(rounds: int) -> None:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        mock = await stack.enter_async_context(processes.child("bench.mock", "--port", "0"))
        collector = await stack.enter_async_context(processes.child("bench.collector"))
        token = f"ts-{secrets.token_urlsafe(32)}"
        pid, port, _ = await stack.enter_async_context(
            processes.twinspan(directory, mock.facts["port"], collector.facts["grpc_port"], token)
        )
        generator = await stack.enter_async_context(processes.generator("bench.load"))
        await _cost(generator, _SMALL_CHAT, pid, port, token)  # to warm up
        ratios = []
        for number in range(rounds):
            plain = await _cost(generator, _SMALL_CHAT, pid, port, token)
            profiled = await _profiled_cost(generator, _SMALL_CHAT, pid, port, token)
            again = await _cost(generator, _SMALL_CHAT, pid, port, token)
            ratios.append(profiled / statistics.mean((plain, again)))
            print(f"round {number + 1}: {plain:.1f} and {again:.1f} us without, {profiled:.1f} with a profile: {ratios[-1]:.3f}")
        print(f"median: {statistics.median(ratios):.3f} times the CPU ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.profiled", description="What a CPU profile costs a loaded gateway.")
    parser.add_argument("--rounds", type=int, default=5, help="how often it is measured (default: 5)")
    child.run(_run(parser.parse_args().rounds))
