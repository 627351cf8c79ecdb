"""What the benchmark's own processes have in common: the loop they run on, how they say that they are ready, and how they end."""

import asyncio
import json
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import uvloop

HOST = "127.0.0.1"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a process's main coroutine on uvloop, on which the gateway runs too."""
    uvloop.run(main)


def ready(**facts: int) -> None:
    """Tells the runner, as a line of JSON, that this process can be used and where."""
    print(json.dumps(facts), flush=True)


async def until_stopped() -> None:
    """Returns once the process is asked to end."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


def port_of(server: asyncio.Server) -> int:
    """Returns the port that the kernel gave to a server."""
    port: int = server.sockets[0].getsockname()[1]
    return port


def free_port() -> int:
    """Returns a port that was free a moment ago, for programs that cannot be given port 0."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
