"""The process of a worker: core and bridge, as `twinspan serve` runs them by itself, beside others on the same ports.

It is started by the supervisor with the descriptor of its link as its only argument; everything else, secrets among it, it is told
there. When the supervisor is gone, however it went, the link ends, and the worker lets requests under way end and follows.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import uvloop

from bridge.cli import memory
from bridge.cli.configuration import load
from bridge.cli.problem import Problem
from bridge.cli.serve import Together, gateway
from bridge.cli.workers.member import Member
from bridge.cli.workers.messages import Begin, Failed, Link, Ready
from gateway.app import Membership

_GRACE_SECONDS: Final = 5.0
"""How long connections of a worker whose place is taken are kept at most, so that clients leave them by themselves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker, and returns the process's exit code."""
    (descriptor,) = sys.argv[1:] if arguments is None else arguments
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2):  # they are the supervisor's, also if all are sent one
        signal.signal(ignored, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(_inherited(int(descriptor))))


async def _run(end: socket.socket) -> int:
    link = await Link.over(end)
    try:
        begin = await link.receive()
        if not isinstance(begin, Begin):
            return 1  # the supervisor is gone
        try:
            await _serve(link, begin)
        except Problem as problem:
            link.send(Failed(str(problem), problem.exit_code))
            await link.flush()
            return problem.exit_code
        return 0
    finally:
        link.close()


async def _serve(link: Link, begin: Begin) -> None:
    member = Member(link)
    membership = Membership(begin.group, begin.grpc_port, begin.token, begin.state_url, begin.local, member)
    sockets = [_inherited(descriptor) for descriptor in begin.rest_sockets]
    configuration = load(begin.config)
    grace_seconds = min(_GRACE_SECONDS, configuration.current.config.server.drain_seconds)
    async with gateway(configuration, together=Together(membership, member, sockets)) as running:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, member.stop.set)
        member.serves(running.core, running.bridge.http)
        memory.settle()
        link.send(Ready(running.bridge.url, running.core.grpc_url, running.core.model_names()))
        await member.stop.wait()
        if member.hands_over:
            await asyncio.gather(running.bridge.server.hand_over(grace_seconds), running.core.hand_over())
        await asyncio.gather(running.bridge.server.stop(), running.core.drain())
        await member.end()


def _inherited(descriptor: int) -> socket.socket:
    found = socket.socket(fileno=descriptor)
    found.set_inheritable(False)
    return found


if __name__ == "__main__":
    sys.exit(main())
