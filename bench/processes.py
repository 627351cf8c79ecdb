"""The processes of a run: each is started by itself, says when it is ready, and is ended by its own process id."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from bench.child import HOST
from bench.phase import Outcome, Phase, Refusal

_READY_SECONDS = 30.0
_STOP_SECONDS = 15.0
_TWINSPAN = Path(sys.executable).with_name("twinspan")


class StartError(Exception):
    """A process did not come up; the message says which and what it said."""


class RefusedError(Exception):
    """A load generator could not measure a phase."""


@dataclasses.dataclass
class Child:
    """One of the benchmark's own servers."""

    pid: int
    facts: Mapping[str, int]
    """What it said of itself when it was ready."""
    parting: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What it said when it ended."""


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Runs one of the benchmark's own servers.

    Raises:
        StartError: It did not come up.
    """
    async with _process(sys.executable, "-m", module, *arguments) as process:
        running = Child(process.pid, json.loads(await _line(process, module)))
        yield running
    assert process.stdout is not None
    if said := (await process.stdout.read()).split(b"\n")[:-1]:
        running.parting = json.loads(said[-1])


class Generator:
    """A load generator that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Takes over a process that is ready."""
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

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
    """Runs a load generator.

    Raises:
        StartError: It did not come up.
    """
    async with _process(sys.executable, "-m", module) as process:
        await _line(process, module)
        yield Generator(process)


@asynccontextmanager
async def twinspan(
    directory: Path,
    upstream_port: int,
    collector_port: int,
    token: str,
    workers: int = 1,
    sections: Mapping[str, Any] | None = None,
) -> AsyncIterator[tuple[int, int, int]]:
    """Runs the gateway as its users do, with a tenth of its traces sampled and exported; gives its process id and both ports.

    Args:
        directory: Where its configuration and its log are.
        upstream_port: Where its provider listens.
        collector_port: Where its traces go.
        token: The administrator's token.
        workers: How many processes serve.
        sections: Further sections of the configuration.

    Raises:
        StartError: It did not come up.
    """
    configuration = {
        "server": {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning"},
        # No list of models: the mock has one for every behaviour.
        "providers": {"bench": {"base_url": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "bench-upstream-key"}},
        "client_token": token,
        "debug": {"pprof_enabled": True},  # which costs nothing unless one is made
        "files": {"dir": str(directory / "files")},
        **(sections or {}),
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
    log = directory / "twinspan.log"
    with log.open("wb") as stderr:
        command = (str(_TWINSPAN), "serve", "--config", str(path), "--workers", str(workers))
        async with _process(*command, variables=variables, stderr=stderr) as process:
            try:
                rest = await _match(process, r"^REST\s+http://127\.0\.0\.1:(\d+)/v1")
                grpc = await _match(process, r"^gRPC\s+127\.0\.0\.1:(\d+)")
            except StartError as error:
                raise StartError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from None
            yield process.pid, int(rest), int(grpc)


@asynccontextmanager
async def nginx(directory: Path, upstream_port: int) -> AsyncIterator[tuple[int, int]]:
    """Runs nginx as a reverse proxy that passes bodies on as they come; gives its process id and port.

    It is one process without a master, so that its memory and CPU are all that it takes.

    Raises:
        StartError: It did not come up.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    path = directory / "nginx.conf"
    path.write_text(f"""
        daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
        events {{ }}
        http {{
            access_log off; client_max_body_size 0; client_body_temp_path {directory}; proxy_temp_path {directory};
            fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
            upstream bench {{ server {HOST}:{upstream_port}; keepalive 8; }}
            server {{
                listen {HOST}:{port};
                location / {{
                    proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_request_buffering off; proxy_buffering off;
                }}
            }}
        }}
    """)
    async with _process("nginx", "-c", str(path), "-e", f"{directory}/nginx.log") as process:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    if process.returncode is not None:
                        raise StartError((directory / "nginx.log").read_text(errors="replace")[-2000:]) from None
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                break
        yield process.pid, port


@asynccontextmanager
async def _process(
    *command: str, variables: Mapping[str, str] | None = None, stderr: IO[bytes] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # Ctrl-C reaches the runner, which ends them in order
        )
    except OSError as error:
        raise StartError(f"{command[0]}: {error.strerror}") from None
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
    try:
        async with asyncio.timeout(seconds):
            line = await process.stdout.readline()
    except TimeoutError:
        raise StartError(f"{name} said nothing for {seconds:.0f} s") from None
    if not line:
        raise StartError(f"{name} ended with code {await process.wait()}")
    return line


async def _match(process: asyncio.subprocess.Process, pattern: str) -> str:
    while True:
        line = (await _line(process, "twinspan serve")).decode()
        if match := re.search(pattern, line):
            return match[1]
