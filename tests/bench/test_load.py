import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bench import load
from bench.mock import Mock
from bench.phase import Phase

CUT_SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}"


def phase(port: int, *, model: str = "bench-unary", chunks: int = 0, arrival_seconds: float | None = None) -> Phase:
    return Phase(port=port, model=model, kind="small", chunks=chunks, connections=3, seconds=0.05, arrival_seconds=arrival_seconds)


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[int]:
    """A gateway that says the same to everyone; it closes the connection after an answer that is shorter than its length."""

    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(load.SMALL_REQUEST_BYTES)
                writer.write(answer)
                if answer is CUT_SHORT:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(5):
        await asyncio.gather(*served)


async def test_answers_in_one_piece_are_counted() -> None:
    async with Mock() as mock:
        outcome = await load.measure(phase(mock.port))

    assert outcome.failures == {}
    assert outcome.responses > 0
    assert outcome.chunks == 0


async def test_answers_that_hold_a_vector_are_counted() -> None:
    async with Mock() as mock:
        outcome = await load.measure(msgspec.structs.replace(phase(mock.port, model="bench-embedding"), kind="embedding"))

    assert outcome.failures == {}
    assert outcome.responses > 0


async def test_chunks_of_whole_streams_are_counted() -> None:
    async with Mock() as mock:
        outcome = await load.measure(phase(mock.port, model="bench-stream-7", chunks=7))

    assert outcome.failures == {}
    assert outcome.chunks == 7 * outcome.responses > 0


async def test_a_crowd_is_open_at_once_and_each_of_it_asks_once() -> None:
    async with Mock() as mock:
        outcome = await load.measure(phase(mock.port, model="bench-stream-4-20", chunks=4, arrival_seconds=0.01))

    assert outcome.failures == {}
    assert (outcome.responses, outcome.chunks, outcome.most_open) == (3, 12, 3)


@pytest.mark.parametrize("arrival_seconds", [None, 0.01], ids=["again and again", "a crowd"])
@pytest.mark.parametrize(
    ("chunks", "answer", "fault"),
    [
        pytest.param(0, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "status 503", id="status"),
        pytest.param(0, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "the answer is not whole", id="other text"),
        pytest.param(
            0,
            CUT_SHORT,
            "the connection was closed before the answer was complete",
            id="cut short",
        ),
        pytest.param(
            2,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n0\r\n\r\n",
            "1 events where 5 were sent",
            id="chunks lost",
        ),
        pytest.param(
            2,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1e\r\n" + b"data: " * 5 + b"\r\n0\r\n\r\n",
            "the stream has no end",
            id="no end",
        ),
        pytest.param(0, b"HTTP/1.1 200 OK\r\n\r\n{}", "the answer is neither chunked nor has it a length", id="no length"),
    ],
)
async def test_an_answer_that_is_not_right_is_a_failure(
    chunks: int, answer: bytes, fault: str, arrival_seconds: float | None
) -> None:
    async with serving(answer) as port:
        outcome = await load.measure(phase(port, chunks=chunks, arrival_seconds=arrival_seconds))

    assert set(outcome.failures) == {fault}
    assert outcome.responses == 0


async def test_a_gateway_that_cannot_be_reached_is_a_failure() -> None:
    async with serving(b"") as port:
        pass

    outcome = await load.measure(phase(port, arrival_seconds=0.01))

    assert outcome.responses == 0
    assert sum(outcome.failures.values()) == 3
