"""`twinspan stats`: a gateway's counts in a terminal, once or as they change, over either surface."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Protocol

import grpc
import httpx
import orjson
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem
from bridge.transcoding import as_json

_CONNECT_SECONDS = 5.0
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 60.0
_CLEARED = "\x1b[H\x1b[2J"
_PROVIDER = ("PROVIDER", "STATE", "REQUESTS", "ERRORS", "OF LATE", "P50", "COST", "LAST ERROR")
_MODEL = ("MODEL", "PROVIDER", "AGENT", "REQUESTS", "ERRORS", "READ", "WRITTEN", "P50", "P95", "P99", "COST")
_BREAKER = ("BREAKER OF", "PROVIDER", "AGENT", "STATE", "FAILURES", "LEFT", "LAST ERROR")

Stats = Mapping[str, Any]
"""The counts as GET /statsz gives them."""


class Source(Protocol):
    """Where the counts come from."""

    async def get(self) -> Stats:
        """Returns the counts."""

    def watch(self, interval_seconds: float) -> AsyncGenerator[Stats, None]:
        """Gives the counts every so often, until the gateway stops."""


async def run_stats(arguments: argparse.Namespace) -> None:
    """Shows the counts; with `--watch`, until it is interrupted."""
    if not _SHORTEST_SECONDS <= arguments.interval <= _LONGEST_SECONDS:
        raise Problem(f"--interval must be from {_SHORTEST_SECONDS:g} to {_LONGEST_SECONDS:g} seconds.", 2)
    show = _as_json if arguments.json else report
    async with _source(arguments) as source:
        if not arguments.watch:
            print(show(await source.get()))
            return
        live = sys.stdout.isatty() and not arguments.json
        async with aclosing(source.watch(arguments.interval)) as looks:
            async for stats in looks:
                print(f"{_CLEARED if live else ''}{show(stats)}{'' if live or arguments.json else chr(10)}", flush=True)


def report(stats: Stats) -> str:
    """Returns the counts for people: what holds for all, then providers and models."""
    parts = [_summary(stats)]
    if stats["providers"]:
        spent = stats["billing"]["cost_usd_by_provider"]
        parts.append(_table(_PROVIDER, [_provider_row(one, spent.get(one["provider"], 0.0)) for one in stats["providers"]]))
    if stats["models"]:
        parts.append(_table(_MODEL, [_model_row(one) for one in stats["models"]]))
    if stats["breakers"]:
        parts.append(_table(_BREAKER, [_breaker_row(one) for one in stats["breakers"]]))
    return "\n\n".join(parts)


def _as_json(stats: Stats) -> str:
    return orjson.dumps(stats).decode()


def _summary(stats: Stats) -> str:
    totals, billing, batches, process = stats["totals"], stats["billing"], stats["batches"], stats["process"]
    unpriced = f" and requests without a price: {billing['unpriced_requests']}" if billing["unpriced_requests"] else ""
    late, latest = _milliseconds(process["event_loop_lag_p50_seconds"]), _milliseconds(process["event_loop_lag_p99_seconds"])
    said = [
        f"twinspan {stats['version']}, up {_clock(stats['uptime_seconds'])}, requests under way: {stats['inflight_requests']}",
        f"requests to providers: {totals['requests']}, errors: {totals['errors']}",
        f"tokens read: {totals['input_tokens']}, written: {totals['output_tokens']}",
        f"cost: {_dollars(billing['cost_usd'])}{unpriced}",
        f"{_memory(process)}tasks: {process['asyncio_tasks']}, event loop late by {late} (p99 {latest})",
    ]
    if batches["active"]:
        said.append(f"batches under way: {batches['active']}, requests of theirs to be answered: {batches['pending_requests']}")
    return "\n".join(said)


def _provider_row(one: Stats, cost_usd: float) -> Sequence[str]:
    error = f"{one['last_error']}, {_clock(one['last_error_seconds_ago'])} ago" if one["last_error"] else ""
    return (
        one["provider"],
        one["state"],
        str(one["requests"]),
        str(one["errors"]),
        f"{one['recent_error_rate']:.0%}",
        _milliseconds(one["latency_p50_seconds"]),
        _dollars(cost_usd),
        error,
    )


def _model_row(one: Stats) -> Sequence[str]:
    return (
        one["model"],
        one["provider"],
        one["agent"],
        *(str(one[name]) for name in ("requests", "errors", "input_tokens", "output_tokens")),
        *(_milliseconds(one[f"latency_{name}_seconds"]) for name in ("p50", "p95", "p99")),
        _dollars(one["cost_usd"]),
    )


def _breaker_row(one: Stats) -> Sequence[str]:
    left = f"{one['remaining_seconds']:.0f} s"
    return (one["model"], one["provider"], one["agent"], one["state"], str(one["failures"]), left, one["last_error"])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns rows below their headings, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _dollars(usd: float) -> str:
    return f"${usd:.6f}"


def _memory(process: Stats) -> str:
    if "resident_memory_bytes" not in process:
        return ""
    return f"memory: {process['resident_memory_bytes'] / 2**20:.1f} MiB, open files: {process.get('open_files', 0)}, "


class _Rest:
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def get(self) -> Stats:
        try:
            response = await self._http.get(f"{self._url}/statsz")
        except httpx.TransportError as error:
            raise Problem(f"{self._url} does not answer ({type(error).__name__}). Is the gateway running?") from error
        if response.status_code != httpx.codes.OK:
            raise rest_problem(response.status_code, response.content)
        found: Stats = response.json()
        return found

    async def watch(self, interval_seconds: float) -> AsyncGenerator[Stats, None]:
        while True:
            yield await self.get()
            await asyncio.sleep(interval_seconds)


class _Grpc:
    def __init__(self, target: str, channel: grpc.aio.Channel, token: str) -> None:
        self._target = target
        self._stub = AdminServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def get(self) -> Stats:
        try:
            return as_json(await self._stub.GetStats(admin_pb2.GetStatsRequest(), metadata=self._metadata))
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error

    async def watch(self, interval_seconds: float) -> AsyncGenerator[Stats, None]:
        call = self._stub.WatchStats(admin_pb2.WatchStatsRequest(interval_seconds=interval_seconds), metadata=self._metadata)
        try:
            async for message in call:
                yield as_json(message.stats)
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error
        finally:
            call.cancel()


def _source(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Source]:
    if arguments.grpc:
        return _over_grpc(arguments.grpc, arguments.token or os.environ.get("TWINSPAN_TOKEN") or "")
    url = arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080"
    return _over_rest(url.rstrip("/").removesuffix("/v1"))


@asynccontextmanager
async def _over_rest(url: str) -> AsyncIterator[Source]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=_CONNECT_SECONDS)) as http:
        yield _Rest(url, http)


@asynccontextmanager
async def _over_grpc(target: str, token: str) -> AsyncIterator[Source]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield _Grpc(target, channel, token)
