"""What the in-process channel does beyond what every channel does, which is in `tests/contract/test_channels.py`."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from gateway.inprocess import InProcessChannel
from gateway.inprocess.calls import Call
from gateway.inprocess.context import ServicerContext
from gateway.inprocess.pipe import Pipe
from gateway.inprocess.rpc import Rpc
from gateway.rpc.registry import HandlerRegistry
from tests.contract.channel_harness import KINDS, SERVICE, Harness, behaviour, collect, eventually, failure, message, soon, start

Requests = AsyncIterator[StringValue]
Responses = AsyncGenerator[StringValue, None]


async def echo(requests: Requests, _context: Any) -> Responses:
    async for request in requests:
        yield request


async def fail(_requests: Requests, context: Any) -> Responses:
    await context.abort(grpc.StatusCode.NOT_FOUND, "No such thing.")
    yield message("never")


async def hang(_requests: Requests, _context: Any) -> Responses:
    await asyncio.Event().wait()
    yield message("never")


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class TestMethods:
    async def test_a_handler_can_be_registered_after_the_channel_is_made_and_asked(self) -> None:
        registry = HandlerRegistry()
        async with InProcessChannel(registry) as channel:
            call = channel.unary_unary(f"/{SERVICE}/Echo", StringValue.SerializeToString, StringValue.FromString)
            assert (await soon(failure(call(message("a")), "unary_unary"))).code() is grpc.StatusCode.UNIMPLEMENTED

            handler = grpc.unary_unary_rpc_method_handler(
                behaviour("unary_unary", echo), StringValue.FromString, StringValue.SerializeToString
            )
            registry.add_registered_method_handlers(SERVICE, {"Echo": handler})
            assert (await soon(call(message("a")))).value == "a"

    @pytest.mark.parametrize("taken_for", KINDS)
    @pytest.mark.parametrize("served_as", KINDS)
    async def test_a_method_of_another_kind_is_unimplemented(self, harness: Harness, served_as: str, taken_for: str) -> None:
        await harness.serve({"Echo": (served_as, behaviour(served_as, echo))})
        call = start(harness.method("Echo", taken_for), taken_for)

        if served_as == taken_for:
            assert await soon(collect(call, taken_for)) == ["hello"]
        else:
            error = await soon(failure(call, taken_for))
            assert (error.code(), error.details()) == (
                grpc.StatusCode.UNIMPLEMENTED,
                f"/{SERVICE}/Echo is not of the kind (unary or streaming) that the client takes it for.",
            )


class TestMemory:
    @pytest.mark.parametrize("body", [echo, fail, hang])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.usefixtures("without_collector")
    async def test_a_call_is_freed_as_it_ends_without_the_garbage_collector(self, harness: Harness, kind: str, body: Any) -> None:
        method = await harness.serve_one(kind, behaviour(kind, body))
        before = _parts_of_calls()

        async def one() -> "weakref.ref[Any]":
            call = start(method, kind, timeout=None if body is not hang else 0.02)
            reference: weakref.ref[Any] = weakref.ref(call)
            if body is echo:
                assert await collect(call, kind) == ["hello"]
            else:
                # No AioRpcError here, for its traceback would be another thing that holds the call.
                assert await call.code() is not grpc.StatusCode.OK
            return reference

        reference = await soon(one())
        assert reference() is None
        await eventually(lambda: _parts_of_calls() <= before)

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_call_that_nobody_holds_any_more_is_cancelled(self, harness: Harness, kind: str) -> None:
        entered, left = asyncio.Event(), asyncio.Event()

        async def wait(_requests: Requests, _context: Any) -> Responses:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, wait))
        call = start(method, kind)
        await soon(entered.wait())
        assert not left.is_set()

        del call
        await soon(left.wait())


class TestClose:
    async def test_it_returns_when_the_handlers_have_unwound(self, harness: Harness) -> None:
        entered, unwound = asyncio.Event(), []

        async def unwind_slowly(_request: StringValue, _context: Any) -> StringValue:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(3):
                    await asyncio.sleep(0)
                unwound.append(True)
            return message("never")

        method = await harness.serve_one("unary_unary", unwind_slowly)
        call = method(message(""))
        await soon(entered.wait())

        await soon(harness.peers.channel.close())
        assert unwound == [True]
        assert call.cancelled()

    async def test_it_returns_when_the_clients_requests_have_been_closed(self, harness: Harness) -> None:
        asked, closed = asyncio.Event(), []

        async def requests() -> AsyncIterator[StringValue]:
            try:
                asked.set()
                await asyncio.Event().wait()
                yield message("never")
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        method = await harness.serve_one("stream_unary", behaviour("stream_unary", hang))
        call = method(requests())
        await soon(asked.wait())

        await soon(harness.peers.channel.close())
        assert closed == [True]
        assert call.cancelled()

    async def test_what_the_grace_does_not_suffice_for_is_cancelled(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", hang))
        call = method(message(""))

        await soon(harness.peers.channel.close(grace=0.05))
        assert call.cancelled()

    async def test_a_negative_grace_is_refused(self, harness: Harness) -> None:
        await harness.serve_one("unary_unary", behaviour("unary_unary", echo))

        with pytest.raises(ValueError, match="grace must be 0 or more"):
            await harness.peers.channel.close(grace=-1)

    async def test_a_handler_may_close_the_channel_that_it_is_called_through(self, harness: Harness) -> None:
        async def close(_request: StringValue, _context: Any) -> StringValue:
            await harness.peers.channel.close()
            return message("never")

        method = await harness.serve_one("unary_unary", close)
        call = method(message(""))

        with pytest.raises(asyncio.CancelledError):
            await soon(_answer(call))
        assert call.cancelled()


async def _answer(call: Any) -> Any:
    return await call


def _parts_of_calls() -> set[int]:
    parts = (Call, Rpc, Pipe, ServicerContext)
    return {id(each) for each in gc.get_objects() if issubclass(type(each), parts)}
