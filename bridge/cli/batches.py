"""`twinspan batches watch`: a batch's progress in a terminal, over either surface."""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import grpc
import httpx
import orjson
from twinspan.v1 import batches_pb2
from twinspan.v1.batches_pb2_grpc import BatchesServiceStub

from bridge.cli.chat import credential
from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem
from bridge.dialects import batches

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_CONNECT_SECONDS = 5.0
_ERRORS_SHOWN = 10
_NARROWEST_BAR, _WIDEST_BAR = 10, 40

Batch = Mapping[str, Any]
"""A batch in OpenAI's form."""


class Source(Protocol):
    """Where a batch is looked up."""

    async def get(self, id_: str) -> Batch:
        """Returns a batch as it stands."""


async def run_watch(arguments: argparse.Namespace) -> int:
    """Shows a batch's progress until it ends; returns 0 if it was completed."""
    live = sys.stdout.isatty()
    async with _source(arguments) as source:
        progress = Progress(time.monotonic)
        shown = ""
        while True:
            batch = await source.get(arguments.id)
            text = progress.line(batch, shutil.get_terminal_size().columns if live else 0)
            if live:
                print(f"\r\x1b[2K{text}", end="", flush=True)
            elif text != shown:
                print(text, flush=True)
            shown = text
            if batch["status"] in _ENDED:
                break
            await asyncio.sleep(arguments.interval)
    if live:
        print()
    for said in conclusion(batch):
        print(said)
    return 0 if batch["status"] == "completed" else 1


class Progress:
    """Tells how far a batch is, and how fast it goes since this was made."""

    def __init__(self, clock: Any) -> None:
        """Makes a teller; `clock` returns seconds that only rise."""
        self._clock = clock
        self._began: tuple[float, int] | None = None

    def line(self, batch: Batch, columns: int) -> str:
        """Returns one line; with `columns`, one that fits and that tells of the speed too."""
        counts = batch["request_counts"]
        total, done = counts["total"], counts["completed"] + counts["failed"]
        facts = f"{batch['status']:<11} {done}/{total}" + (f", {counts['failed']} failed" if counts["failed"] else "")
        if not columns:
            return f"{batch['id']} {facts}"
        facts += self._speed(done, total)
        share = done / total if total else 0.0
        width = min(_WIDEST_BAR, columns - len(facts) - 10)
        if width >= _NARROWEST_BAR:
            filled = round(share * width)
            facts = f"[{'#' * filled}{'-' * (width - filled)}] {share:4.0%} {facts}"
        return facts[: columns - 1]

    def _speed(self, done: int, total: int) -> str:
        now = self._clock()
        if self._began is None:
            self._began = (now, done)
        seconds, lines = now - self._began[0], done - self._began[1]
        if seconds <= 0 or lines <= 0:
            return ""
        left = round((total - done) * seconds / lines)
        return f", {lines / seconds:.1f}/s, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def conclusion(batch: Batch) -> list[str]:
    """Returns what is to be said of a batch that has ended."""
    said = [
        f"{name}: {batch[field]}" for name, field in (("output", "output_file_id"), ("errors", "error_file_id")) if batch[field]
    ]
    problems = (batch["errors"] or {}).get("data", [])
    for problem in problems[:_ERRORS_SHOWN]:
        place = f"line {problem['line']}: " if problem["line"] else ""
        said.append(f"{place}{problem['message']} ({problem['code']})")
    if len(problems) > _ERRORS_SHOWN:
        said.append(f"and {len(problems) - _ERRORS_SHOWN} more")
    return said


class _Rest:
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def get(self, id_: str) -> Batch:
        try:
            response = await self._http.get(f"{self._url}/v1/batches/{id_}")
        except httpx.TransportError as error:
            raise Problem(f"{self._url} does not answer ({type(error).__name__}). Is the gateway running?") from error
        if response.status_code != httpx.codes.OK:
            raise rest_problem(response.status_code, response.content)
        found: Batch = response.json()
        return found


class _Grpc:
    def __init__(self, target: str, channel: grpc.aio.Channel, token: str) -> None:
        self._target = target
        self._stub = BatchesServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def get(self, id_: str) -> Batch:
        try:
            batch = await self._stub.Get(batches_pb2.BatchesServiceGetRequest(id=id_), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error
        found: Batch = orjson.loads(batches.batch_object(batch))
        return found


def _source(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Source]:
    token = credential(arguments)
    if arguments.grpc:
        return _over_grpc(arguments.grpc, token)
    url = arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080"
    return _over_rest(url.rstrip("/").removesuffix("/v1"), token)


@asynccontextmanager
async def _over_rest(url: str, token: str) -> AsyncIterator[Source]:
    timeout = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as http:
        yield _Rest(url, http)


@asynccontextmanager
async def _over_grpc(target: str, token: str) -> AsyncIterator[Source]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield _Grpc(target, channel, token)
