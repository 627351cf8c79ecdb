"""The load generator for HTTP, a process of its own: many `Exchange`s that each ask again and again, or a crowd that asks once."""

import asyncio
import contextlib
import gc
import time

from bench import answers, child, phase
from bench.agent_request import bodies
from bench.exchange import Exchange
from bench.phase import Outcome, Phase
from bench.tally import Tally

SMALL_REQUEST_BYTES = 200
# A gateway that answers nothing right is not worth a whole phase.
_MOST_FAILURES = 200
_DRAIN_SECONDS = 10.0


def small_body(model: str, *, stream: bool) -> bytes:
    """Returns the body of a short chat, `SMALL_REQUEST_BYTES` long."""

    def of(content: str) -> bytes:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
        return answers.dump({"model": model, "messages": messages, "temperature": 0.7} | ({"stream": True} if stream else {}))

    return of(answers.text(SMALL_REQUEST_BYTES - len(of(""))))


def embedding_body(model: str) -> bytes:
    """Returns the body of a request for one short text's embedding, `SMALL_REQUEST_BYTES` long."""

    def of(text: str) -> bytes:
        return answers.dump({"input": text, "model": model, "encoding_format": "base64"})

    return of(answers.text(SMALL_REQUEST_BYTES - len(of(""))))


def requests(wanted: Phase) -> list[bytes]:
    """Returns the requests of a phase, head and body, to be sent in turn."""
    match wanted.kind:
        case "agent":
            made = bodies(wanted.model)
        case "embedding":
            made = [embedding_body(wanted.model)]
        case _:
            made = [small_body(wanted.model, stream=wanted.chunks > 0)]
    headers = {
        "host": f"{child.HOST}:{wanted.port}",
        "user-agent": "bench",
        "accept": "application/json",
        "content-type": "application/json",
        **wanted.headers,
    }
    head = f"POST {wanted.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in made]


class ClosedLoop:
    """Connections that each send the next request once the last answer is complete."""

    def __init__(self, wanted: Phase) -> None:
        """Prepares a phase; `run` carries it out."""
        self._phase = wanted
        self._requests = requests(wanted)
        self._next = 0
        self._tally = Tally(wanted)
        self._going = True
        self._open: set[Exchange] = set()
        self._all_closed = asyncio.Event()

    async def run(self) -> Outcome:
        """Warms up, measures, lets what is under way come to its end, and returns what came of it."""
        async with asyncio.TaskGroup() as self._connecting:
            for _ in range(self._phase.connections):
                self._connecting.create_task(self._connect())
            await asyncio.sleep(self._phase.warmup_seconds)
            self._tally.start()
            await asyncio.sleep(self._phase.seconds)
            self._tally.stop()
            self._going = False
            await self._drain()
        return self._tally.outcome()

    def connected(self, exchange: Exchange) -> None:
        """Sends the first request."""
        self._open.add(exchange)
        self._send(exchange)

    def done(self, exchange: Exchange, fault: str | None) -> None:
        """Counts the answer and sends the next request."""
        if fault is None:
            self._tally.success(exchange.ended - exchange.started, exchange.first - exchange.started)
        else:
            self._tally.failure(fault)
        if not self._wanted():
            exchange.transport.close()
        elif not exchange.transport.is_closing():
            self._send(exchange)

    def lost(self, exchange: Exchange) -> None:
        """Puts another connection in the place of one that the gateway closed."""
        self._open.discard(exchange)
        if self._wanted():
            self._connecting.create_task(self._connect())
        if not self._open:
            self._all_closed.set()

    def _wanted(self) -> bool:
        return self._going and self._tally.failed < _MOST_FAILURES

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Exchange(self._phase.chunks, self), child.HOST, self._phase.port)
        except OSError as error:
            self._tally.failure(f"cannot connect: {error.strerror}")

    def _send(self, exchange: Exchange) -> None:
        exchange.send(self._requests[self._next % len(self._requests)])
        self._next += 1

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._open:
                    self._all_closed.clear()
                    await self._all_closed.wait()
        for exchange in list(self._open):
            exchange.transport.abort()


class Crowd:
    """Connections that arrive one after another, ask once, and stay until they have their answer."""

    def __init__(self, wanted: Phase, arrival_seconds: float) -> None:
        """Prepares a phase; `run` carries it out."""
        self._phase = wanted
        self._interval = arrival_seconds / wanted.connections
        self._request = requests(wanted)[0]
        self._tally = Tally(wanted)
        self._arrivals: dict[Exchange, float] = {}
        self._left = 0
        self._all_left = asyncio.Event()

    async def run(self) -> Outcome:
        """Lets the crowd in, waits until all have left, and returns what came of it."""
        watch = asyncio.create_task(self._tally.watch_memory())
        # The first reading is of the gateway before anyone arrives.
        await asyncio.sleep(0)
        self._tally.start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._phase.deadline_seconds), asyncio.TaskGroup() as arriving:
                    await self._arrive(arriving)
                    await self._all_left.wait()
        finally:
            self._tally.stop()
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        for exchange in list(self._arrivals):
            exchange.transport.abort()
        for _ in range(self._phase.connections - self._left):
            self._tally.failure(f"not complete after {self._phase.deadline_seconds:.0f} s")
        return self._tally.outcome()

    def connected(self, exchange: Exchange) -> None:
        """Sends the only request."""
        self._tally.opened()
        exchange.send(self._request)

    def done(self, exchange: Exchange, fault: str | None) -> None:
        """Counts the answer and leaves."""
        arrived = self._arrivals.pop(exchange)
        if fault is None:
            self._tally.success(exchange.ended - arrived, exchange.first - arrived)
        else:
            self._tally.failure(fault)
        self._tally.closed()
        self._leave()
        exchange.transport.close()

    def lost(self, exchange: Exchange) -> None:
        """Has nothing to do: each asks once, and `done` heard of it."""

    async def _arrive(self, arriving: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.time()
        for number in range(self._phase.connections):
            await asyncio.sleep(opening + number * self._interval - loop.time())
            arriving.create_task(self._visit(time.perf_counter()))

    async def _visit(self, arrived: float) -> None:
        exchange = Exchange(self._phase.chunks, self)
        self._arrivals[exchange] = arrived
        try:
            await asyncio.get_running_loop().create_connection(lambda: exchange, child.HOST, self._phase.port)
        except OSError as error:
            del self._arrivals[exchange]
            self._tally.failure(f"cannot connect: {error.strerror}")
            self._leave()

    def _leave(self) -> None:
        self._left += 1
        if self._left == self._phase.connections:
            self._all_left.set()


async def measure(wanted: Phase) -> Outcome:
    """Carries out one phase.

    Raises:
        ProcessLookupError: A process to be watched is gone.
    """
    if wanted.arrival_seconds is not None:
        return await Crowd(wanted, wanted.arrival_seconds).run()
    return await ClosedLoop(wanted).run()


if __name__ == "__main__":
    gc.freeze()
    child.run(phase.serve(measure))
