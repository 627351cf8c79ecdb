"""The mock upstream: an OpenAI-compatible server that costs as little as a server in Python can.

A bare `asyncio.Protocol` on uvloop sends answers that were made before: no routing, no JSON, one search of the body for the
model's name (see `behaviour`) and one for what a stream shall carry. Requests may be as long as they like, with a length or
chunked, on connections that are kept alive; pipelining is not supported. It is no model of a provider's speed: it answers at
once.

Every chunk is a `write` and an HTTP chunk of its own. Where a stream does not pause, uvloop gathers the writes of one turn of its
loop into one system call, as a provider's own writer does once its reader is the slower side.
"""

import argparse
import asyncio
import gc
from typing import Self, cast

from bench import answers, child
from bench.behaviour import EMBEDDING, PREFIX, UNARY, Behaviour, behaviour_of
from bench.pacer import Pacer

_HEAD_END = b"\r\n\r\n"
_CHUNKED_END = b"0\r\n\r\n"
_COMMON = (
    b"date: Thu, 09 Oct 2025 08:53:20 GMT\r\nserver: mock\r\nx-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 1\r\n"
)
_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n"


class Script:
    """A stream's bytes, ready to be sent, with the pace at which they are."""

    def __init__(self, behaviour: Behaviour, *, with_usage: bool, pacer: Pacer | None) -> None:
        """Makes the bytes of every event; `pacer` is given if and only if the stream pauses."""
        framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in answers.events(behaviour.chunks, with_usage=with_usage)]
        # The role comes with the first text and the end with the last one, as providers send them.
        last = behaviour.chunks
        self.opening = [b"HTTP/1.1 200 OK\r\n" + _STREAM + _COMMON + b"\r\n", framed[0]]
        self.chunks = framed[1 : last + 1]
        self.closing = [*framed[last + 1 :], _CHUNKED_END]
        self.per_turn = behaviour.per_turn or behaviour.chunks
        self.pacer = pacer


class Scripts:
    """What the mock can say: made at first use, kept for good, found by the name that a request's body holds."""

    def __init__(self) -> None:
        """Makes the answers that do not depend on a model."""
        self.unary = _plain(200, answers.unary())
        self.embedding = _plain(200, answers.embedding())
        listed = [{"id": UNARY, "object": "model", "created": 1_760_000_000, "owned_by": "mock"}]
        self.models = _plain(200, answers.dump({"object": "list", "data": listed}))
        error = {
            "message": "The mock knows no such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
        self.unknown = _plain(404, answers.dump({"error": error}))
        self._made: dict[tuple[bytes, bool], Script] = {}
        self._pacers: dict[int, Pacer] = {}

    def script(self, name: bytes, *, with_usage: bool) -> Script | None:
        """Returns the stream of the model called `name`, or None if that does not stream."""
        script = self._made.get((name, with_usage))
        if script is None:
            behaviour = behaviour_of(name.decode(errors="replace"))
            if behaviour is None:
                return None
            script = Script(behaviour, with_usage=with_usage, pacer=self._pacer(behaviour.pause_milliseconds))
            self._made[name, with_usage] = script
        return script

    def close(self) -> None:
        """Stops the clocks."""
        for pacer in self._pacers.values():
            pacer.close()

    def _pacer(self, pause_milliseconds: int) -> Pacer | None:
        if pause_milliseconds == 0:
            return None
        if pause_milliseconds not in self._pacers:
            self._pacers[pause_milliseconds] = Pacer(pause_milliseconds / 1000)
        return self._pacers[pause_milliseconds]


class Connection(asyncio.Protocol):
    """One connection of a gateway: reads a request, answers it, reads the next."""

    def __init__(self, scripts: Scripts) -> None:
        """Makes the server's side of one connection."""
        self._scripts = scripts
        self._whole = {UNARY.encode(): scripts.unary, EMBEDDING.encode(): scripts.embedding}
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._needed = 0
        self._script: Script | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to write."""
        # A cast, since uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Ends a stream that nobody reads any more."""
        if self._script is not None and self._script.pacer is not None:
            self._script.pacer.leave(self)
        self._script = None

    def data_received(self, data: bytes) -> None:
        """Answers once the request is complete."""
        self._received += data
        if len(self._received) < self._needed:
            return
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._needed = end + 4 + int(head[at + 17 : (head.find(b"\r\n", at + 17) + 1 or end + 1) - 1])
            if b"\r\nexpect:" in head and len(self._received) == end + 4:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if len(self._received) < self._needed:
                return
            body = self._received[end + 4 : self._needed]
        elif b"\r\ntransfer-encoding: chunked" in head:
            if not self._received.endswith(_CHUNKED_END):
                return
            body = answers.unchunked(self._received[end + 4 :])
        else:
            body = bytearray()
        self._received = bytearray()
        self._needed = 0
        self._answer(head, body)

    def advance(self) -> bool:
        """Sends the next chunk of a stream that pauses, and the end with the last one."""
        script = self._script
        if script is None:
            return False
        self._transport.write(script.chunks[self._sent])
        self._sent += 1
        if self._sent < len(script.chunks):
            return True
        self._finish(script)
        return False

    def _answer(self, head: bytes, body: bytearray) -> None:
        if head.startswith(b"get "):
            self._transport.write(self._scripts.models)
            return
        at = body.find(PREFIX)
        name = bytes(body[at : body.find(b'"', at)]) if at >= 0 else b""
        script = self._scripts.script(name, with_usage=_says(body, b'"include_usage"'))
        if script is None:
            self._transport.write(self._whole.get(name, self._scripts.unknown))
            return
        self._script = script
        self._sent = 0
        for piece in script.opening:
            self._transport.write(piece)
        if script.pacer is None:
            self._burst()
        elif self.advance():
            script.pacer.join(self)

    def _burst(self) -> None:
        script = self._script
        if script is None:
            return
        until = min(self._sent + script.per_turn, len(script.chunks))
        for chunk in script.chunks[self._sent : until]:
            self._transport.write(chunk)
        self._sent = until
        if until < len(script.chunks):
            self._loop.call_soon(self._burst)
        else:
            self._finish(script)

    def _finish(self, script: Script) -> None:
        self._script = None
        for piece in script.closing:
            self._transport.write(piece)


class Mock:
    """The mock upstream, listening."""

    def __init__(self, port: int = 0) -> None:
        """Makes a mock that listens on `port` of the loopback once it is entered; 0 lets the kernel choose."""
        self._wanted = port
        self.port = port

    async def __aenter__(self) -> Self:
        """Listens."""
        self._scripts = Scripts()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._scripts), child.HOST, self._wanted, backlog=4096)
        self.port = child.port_of(self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops listening and stops the streams' clocks."""
        self._scripts.close()
        self._server.close()


def _says(body: bytearray, key: bytes) -> bool:
    at = body.find(key)
    return at >= 0 and body[at + len(key) : at + len(key) + 8].replace(b" ", b"").startswith(b":true")


def _plain(status: int, body: bytes) -> bytes:
    reason = {200: b"OK", 404: b"Not Found"}[status]
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, reason, len(body))
    return head + _COMMON + b"\r\n" + body


async def _main(port: int) -> None:
    async with Mock(port) as mock:
        # What is there now stays for good; a sweep over it in mid-stream would be jitter that the gateway is blamed for.
        gc.freeze()
        child.ready(port=mock.port)
        await child.until_stopped()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The benchmark's mock upstream, by itself.")
    parser.add_argument("--port", type=int, default=0, help="the port of the loopback to listen on (default: a free one)")
    child.run(_main(parser.parse_args().port))
