"""W5, `python -m bench.bulk`: 100 MB through the gateway each way, beside the floor and no proxy at all; see docs/performance.md.

Each target is measured in turn, round after round. Speed is that of one transfer at a time; memory is the process's highest.
"""

import argparse
import asyncio
import secrets
import shutil
import socket
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import child, processes

_MEGABYTE = 1_000_000
_SIZE = 100 * _MEGABYTE
_PIECE = bytes(256 * 1024)
_SECONDS = 60


@dataclass
class _Target:
    name: str
    port: int
    pid: int
    path: str = "/"
    token: str = ""
    down: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)

    def peak_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / _MEGABYTE


def _transfer(target: _Target, request: str, send: int, receive: int) -> float:
    """Makes one request and returns how many MB a second its body took. It must come whole."""
    buffer = memoryview(bytearray(1024 * 1024))
    began = time.perf_counter()
    with socket.create_connection((child.HOST, target.port), timeout=_SECONDS) as connection:
        head = f"{request} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {target.token}\r\nConnection: close\r\n"
        connection.sendall(f"{head}{f'Content-Length: {send}' if send else 'Accept: */*'}\r\n\r\n".encode())
        for start in range(0, send, len(_PIECE)):
            connection.sendall(_PIECE[: send - start])
        came = b""
        while b"\r\n\r\n" not in came:
            came += connection.recv(64 * 1024) or b"\r\n\r\n"
        if not came.startswith(b"HTTP/1.1 200 "):
            raise processes.StartError(f"{target.name}: {came[:300]!r}")
        count = len(came.partition(b"\r\n\r\n")[2])
        while count < receive and (got := connection.recv_into(buffer)):
            count += got
    if count != receive:
        raise processes.StartError(f"{target.name}: {count} bytes came, and {receive} were asked for")
    return max(send, receive) / _MEGABYTE / (time.perf_counter() - began)


def _measure(targets: list[_Target], rounds: int) -> None:
    for _ in range(rounds):
        for target in targets:
            target.down.append(_transfer(target, f"GET {target.path}{_SIZE}", 0, _SIZE))
            target.up.append(_transfer(target, f"POST {target.path}up", _SIZE, 2))


async def _run(rounds: int) -> None:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinspan-bench-")))
        mock = await stack.enter_async_context(processes.child("bench.bulk_mock"))
        collector = await stack.enter_async_context(processes.child("bench.collector"))
        upstream = f"http://{child.HOST}:{mock.facts['port']}"
        floor = await stack.enter_async_context(processes.child("bench.floor", "--upstream", upstream))
        token = f"ts-{secrets.token_urlsafe(32)}"
        pid, port, _ = await stack.enter_async_context(
            processes.twinspan(directory, mock.facts["port"], collector.facts["grpc_port"], token)
        )
        targets = [
            _Target("direct", mock.facts["port"], mock.pid),
            _Target("floor", floor.facts["port"], floor.pid),
            _Target("twinspan", port, pid, "/proxy/bench/", token),
        ]
        if shutil.which("nginx"):
            nginx_pid, nginx_port = await stack.enter_async_context(processes.nginx(directory, mock.facts["port"]))
            targets.insert(2, _Target("nginx", nginx_port, nginx_pid))
        idle = {target.name: target.peak_mb() for target in targets}
        await asyncio.to_thread(_measure, targets, rounds)
        for target in targets:
            print(
                f"| {target.name} | {statistics.median(target.down):,.0f} | {statistics.median(target.up):,.0f} "
                f"| {target.peak_mb():.0f} | {target.peak_mb() - idle[target.name]:.0f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.bulk", description="100 MB through the gateway, each way.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each target is measured (default: 5)")
    given = parser.parse_args()
    print("| target | MB/s down | MB/s up | peak MB | grown by, MB |\n| --- | ---: | ---: | ---: | ---: |")
    child.run(_run(given.rounds))
