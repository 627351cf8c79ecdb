"""The client's side of a call in one process, where grpc.aio's own calls do otherwise or cannot be made to."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.contract.channel_harness import KINDS, Harness, behaviour, collect, failure, message, soon, start

Requests = AsyncIterator[StringValue]
Responses = AsyncGenerator[StringValue, None]
STREAMING_REQUESTS = [kind for kind in KINDS if kind.startswith("stream_")]
STREAMING_RESPONSES = [kind for kind in KINDS if kind.endswith("_stream")]


async def echo(requests: Requests, _context: Any) -> Responses:
    async for request in requests:
        yield request


class TestStart:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_handler_sees_no_call_that_was_cancelled_before_it_began(self, harness: Harness, kind: str) -> None:
        entered = []

        async def enter(_requests: Requests, _context: Any) -> Responses:
            entered.append(True)
            yield message("")

        method = await harness.serve_one(kind, behaviour(kind, enter))
        call = start(method, kind)
        call.cancel()

        await soon(harness.peers.channel.close())
        assert entered == []

    async def test_a_call_says_what_it_is_and_how_it_is(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", echo))
        call = method(message(""))

        assert repr(call) == "<UnaryUnaryCall of /test.Channels/Method, under way>"
        await soon(call)
        assert repr(call) == "<UnaryUnaryCall of /test.Channels/Method, ended with StatusCode.OK, ''>"

    async def test_there_is_nothing_to_connect(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", echo))
        call = method(message("a"))

        await call.wait_for_connection()
        assert not call.done()
        assert (await soon(call)).value == "a"


class TestStatus:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_initial_metadata_goes_with_an_error_even_if_nobody_looked_at_it_before(
        self, harness: Harness, kind: str
    ) -> None:
        async def fail(_requests: Requests, context: Any) -> Responses:
            await context.send_initial_metadata((("x-request-id", "req_1"),))
            await context.abort(grpc.StatusCode.INTERNAL, "Broken.")
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, fail))
        error = await soon(failure(start(method, kind), kind))

        assert error.initial_metadata() == grpc.aio.Metadata(("x-request-id", "req_1"))

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_the_status_waits_behind_the_last_message(self, harness: Harness, kind: str) -> None:
        async def answer(_requests: Requests, context: Any) -> Responses:
            context.set_trailing_metadata((("x-cost", "1"),))
            yield message("only")

        method = await harness.serve_one(kind, behaviour(kind, answer))
        call = start(method, kind)
        await soon(call.initial_metadata())
        await asyncio.sleep(0)
        assert not call.done()

        assert (await soon(call.read())).value == "only"
        assert await soon(call.trailing_metadata()) == grpc.aio.Metadata(("x-cost", "1"))

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_a_call_whose_last_message_is_unread_can_still_be_cancelled(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, echo))
        call = start(method, kind)
        await soon(call.initial_metadata())
        await asyncio.sleep(0)

        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(call.read())
        assert await soon(call.code()) is grpc.StatusCode.CANCELLED


class TestReading:
    async def test_only_one_read_can_wait(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_stream", behaviour("stream_stream", echo))
        call = method()
        first = asyncio.create_task(call.read())
        await asyncio.sleep(0)

        with pytest.raises(grpc.aio.UsageError, match="Another read is still waiting"):
            await call.read()
        await soon(call.write(message("for the first")))
        assert (await soon(first)).value == "for the first"
        call.cancel()

    async def test_a_message_that_arrived_for_a_cancelled_read_is_the_next_reads(self, harness: Harness) -> None:
        read = asyncio.Event()

        async def answer(request: StringValue, context: Any) -> None:
            await read.wait()
            await context.write(request)

        method = await harness.serve_one("unary_stream", answer)
        call = method(message("kept"))
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        read.set()
        # The message and the status come in one go, and the reader is cancelled before it can run.
        call.add_done_callback(lambda _: reading.cancel())

        with pytest.raises(asyncio.CancelledError):
            await soon(reading)
        assert not call.cancelled()
        assert (await soon(call.read())).value == "kept"
        assert await soon(call.read()) is grpc.aio.EOF


class TestWriting:
    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_only_one_write_can_wait(self, harness: Harness, kind: str) -> None:
        async def never_read(_requests: Requests, _context: Any) -> Responses:
            await asyncio.Event().wait()
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, never_read))
        call = method()
        await soon(call.write(message("buffered")))
        waiting = asyncio.create_task(call.write(message("waits")))
        await asyncio.sleep(0)

        with pytest.raises(grpc.aio.UsageError, match="Another write is still waiting"):
            await call.write(message("too many"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)
        assert call.cancelled()

    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_a_request_that_is_no_message_cancels_the_call(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, echo))

        with pytest.raises(asyncio.CancelledError):
            await soon(collect(method(iter([None])), kind))

    async def test_requests_that_are_not_wanted_any_more_do_not_undo_the_answer(self, harness: Harness) -> None:
        async def requests() -> Responses:
            yield message("only")
            try:
                await asyncio.Event().wait()
            finally:
                raise RuntimeError("The client's own fault, and too late to matter.")

        async def take_one(requests: Requests, _context: Any) -> Responses:
            async for request in requests:
                yield request
                return

        method = await harness.serve_one("stream_stream", behaviour("stream_stream", take_one))

        assert await soon(collect(method(requests()), "stream_stream")) == ["only"]


class TestDoneCallbacks:
    async def test_they_run_in_the_context_that_they_were_added_in(self, harness: Harness) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", echo))
        call = method(message(""))

        variable.set("when added")
        call.add_done_callback(lambda _: seen.append(variable.get()))
        variable.set("later")
        await soon(call)
        assert seen == ["when added"]

    async def test_one_that_fails_is_logged_and_undoes_nothing(self, harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
        def fail(_call: Any) -> None:
            raise RuntimeError("a callback's fault")

        method = await harness.serve_one("unary_unary", behaviour("unary_unary", echo))
        call = method(message("a"))
        call.add_done_callback(fail)

        assert (await soon(call)).value == "a"
        assert [(record.levelno, str(record.exc_info and record.exc_info[1])) for record in caplog.records] == [
            (logging.ERROR, "a callback's fault")
        ]
