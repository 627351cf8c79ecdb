from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from twinspan.v1 import chat_pb2, chat_pb2_grpc

from bench import grpc_load
from bench.echo import Echo
from bench.phase import Phase


class Short(Echo):
    """Loses the end of each answer."""

    async def Complete(self, request: chat_pb2.CompleteRequest, context: object) -> chat_pb2.CompleteResponse:  # noqa: N802 - gRPC's name
        return chat_pb2.CompleteResponse(choices=[chat_pb2.Choice()])

    async def Stream(self, request: chat_pb2.StreamRequest, context: object) -> AsyncIterator[chat_pb2.StreamResponse]:  # noqa: N802 - gRPC's name
        messages = [message async for message in super().Stream(request, context)]
        for message in messages[:-1]:
            yield message


@asynccontextmanager
async def serving(echo: Echo) -> AsyncIterator[int]:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


def phase(port: int, chunks: int) -> Phase:
    model = f"bench-stream-{chunks}" if chunks else "bench-unary"
    return Phase(port=port, model=model, kind="small", chunks=chunks, connections=2, seconds=0.05)


@pytest.mark.parametrize("chunks", [0, 5])
async def test_whole_answers_are_counted(chunks: int) -> None:
    async with serving(Echo()) as port:
        outcome = await grpc_load.measure(phase(port, chunks))

    assert outcome.failures == {}
    assert outcome.responses > 0
    assert (outcome.chunks, outcome.messages) == (chunks * outcome.responses, chunks * outcome.responses)


@pytest.mark.parametrize(("chunks", "fault"), [(0, "the answer is not whole"), (5, "22 characters where 28 were sent")])
async def test_an_answer_that_is_cut_short_is_a_failure(chunks: int, fault: str) -> None:
    async with serving(Short()) as port:
        outcome = await grpc_load.measure(phase(port, chunks))

    assert set(outcome.failures) == {fault}
    assert outcome.responses == 0


async def test_a_refused_call_is_a_failure_with_its_code() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        outcome = await grpc_load.measure(phase(port, 0))
    finally:
        await server.stop(grace=None)

    assert [fault.partition(":")[0] for fault in outcome.failures] == ["UNIMPLEMENTED"]
