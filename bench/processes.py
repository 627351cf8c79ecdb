"""The processes of a run: each is started by itself, says when it is ready, and is ended by its own process id."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.phase import Outcome, Phase, Refusal

_READY_SECONDS = 30.0
_STOP_SECONDS = 15.0
_TWINSPAN = Path(sys.executable).with_name("twinspan")


class StartError(Exception):
    """A process did not come up; the message says which and what it said."""


class RefusedError(Exception):
    """A load generator could not measure a phase."""


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[tuple[int, dict[str, int]]]:
    """Runs one of the benchmark's own servers; gives its process id and what it said of itself."""
    async with _process(sys.executable, "-m", module, *arguments) as process:
        yield process.pid, json.loads(await _line(process, module))


class Generator:
    """A load generator that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Takes over a process that is ready."""
        self._process = process

    async def measure(self, phase: Phase) -> Outcome:
        """Has a phase measured.

        Raises:
            RefusedError: It could not be.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(phase) + b"\n")
        await self._process.stdin.drain()
        answer = await _line(self._process, "the load generator", seconds=phase.deadline_seconds + phase.seconds + 60)
        decoded = json.loads(answer)
        if "refused" in decoded:
            raise RefusedError(msgspec.convert(decoded, Refusal).refused)
        return msgspec.convert(decoded, Outcome)


@asynccontextmanager
async def generator(module: str) -> AsyncIterator[Generator]:
    """Runs a load generator."""
    async with _process(sys.executable, "-m", module) as process:
        await _line(process, module)
        yield Generator(process)


@asynccontextmanager
async def twinspan(directory: Path, upstream_port: int, collector_port: int, token: str) -> AsyncIterator[tuple[int, int, int]]:
    """Runs the gateway as its users do, with a tenth of its traces sampled and exported; gives its process id and both ports."""
    configuration = {
        "server": {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning"},
        # No list of models: the mock has one for every behaviour.
        "providers": {"bench": {"base_url": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "bench-upstream-key"}},
        "client_token": token,
    }
    path = directory / "twinspan.json"
    path.write_text(json.dumps(configuration))
    path.chmod(0o600)
    variables = {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
        "OTEL_METRICS_EXPORTER": "none",
    }
    async with _process(str(_TWINSPAN), "serve", "--config", str(path), variables=variables) as process:
        rest = await _match(process, r"^REST\s+http://127\.0\.0\.1:(\d+)/v1")
        grpc = await _match(process, r"^gRPC\s+127\.0\.0\.1:(\d+)")
        yield process.pid, int(rest), int(grpc)


@asynccontextmanager
async def _process(*command: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(variables or {})},
        start_new_session=True,  # Ctrl-C reaches the runner, which ends them in order
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process, name: str, seconds: float = _READY_SECONDS) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        line = await process.stdout.readline()
    if not line:
        raise StartError(f"{name} ended with code {await process.wait()}")
    return line


async def _match(process: asyncio.subprocess.Process, pattern: str) -> str:
    while True:
        line = (await _line(process, "twinspan serve")).decode()
        if match := re.search(pattern, line):
            return match[1]
