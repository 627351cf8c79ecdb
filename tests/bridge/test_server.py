"""The HTTP server as it meets connections."""

import asyncio
import socket
from contextlib import ExitStack

import uvloop
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry

from bridge.router import Router
from bridge.server import BridgeServer, ServerSettings
from bridge.telemetry.http import HttpTelemetry
from bridge.telemetry.metrics import HttpMetrics

CROWD = 64


async def turns_until_answered(port: int) -> int:
    """Returns in how many turns of the event loop a crowd that waits before the door has got its answers."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CROWD)]
        for client in crowd:  # the system has connected them all before the event loop has seen the first
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            client.setblocking(False)
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            ticking.append(loop.call_soon(turn))

        ticking = [loop.call_soon(turn)]
        answers = await asyncio.gather(*(loop.sock_recv(client, 12) for client in crowd))
        assert set(answers) == {b"HTTP/1.1 404"}
        ticking[-1].cancel()
        return turns


def test_a_crowd_is_let_in_within_a_few_turns_of_the_event_loop() -> None:
    async def run() -> int:
        telemetry = HttpTelemetry(NoOpTracerProvider(), HttpMetrics(CollectorRegistry()))
        server = BridgeServer(Router(), ServerSettings("127.0.0.1", 0), telemetry)
        port = await server.start()
        try:
            async with asyncio.timeout(10):
                return await turns_until_answered(port)
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) < CROWD / 2  # let in one a turn, it could not be less than CROWD
