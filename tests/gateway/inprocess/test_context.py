"""The handler's side of a call in one process, where grpc.aio's own context does otherwise or cannot be made to."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.contract.channel_harness import KINDS, Harness, behaviour, failure, message, soon, start

Requests = AsyncIterator[StringValue]
Responses = AsyncGenerator[StringValue, None]
STREAMING_REQUESTS = [kind for kind in KINDS if kind.startswith("stream_")]


class TestAbandonedCalls:
    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_a_reader_is_cancelled_and_does_not_take_the_part_for_the_whole(self, harness: Harness, kind: str) -> None:
        """grpc.aio says `EOF` here, as if the client had written all that it had."""
        read: asyncio.Queue[Any] = asyncio.Queue()

        async def read_in_another_task(_requests: Requests, context: Any) -> Responses:
            async def pump() -> None:
                try:
                    while True:
                        read.put_nowait((await context.read()).value)
                except BaseException as error:
                    read.put_nowait(type(error))
                    raise

            pumping = asyncio.create_task(pump())
            try:
                await asyncio.Event().wait()
                yield message("never")
            finally:
                await asyncio.gather(pumping, return_exceptions=True)

        method = await harness.serve_one(kind, behaviour(kind, read_in_another_task))
        call = method()
        await soon(call.write(message("part")))
        assert await soon(read.get()) == "part"

        call.cancel()
        assert await soon(read.get()) is asyncio.CancelledError

    @pytest.mark.parametrize("way", ["cancel", "deadline"])
    async def test_the_context_tells_that_the_client_has_gone(self, harness: Harness, way: str) -> None:
        entered = asyncio.Event()
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def look(_request: StringValue, context: Any) -> StringValue:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.put_nowait((context.cancelled(), context.done()))
            return message("never")

        method = await harness.serve_one("unary_unary", look)
        call = method(message(""), timeout=0.05 if way == "deadline" else None)
        await soon(entered.wait())
        if way == "cancel":
            call.cancel()

        assert await soon(seen.get()) == (True, True)

    async def test_what_a_handler_does_after_it_was_cancelled_comes_to_nothing(self, harness: Harness) -> None:
        entered = asyncio.Event()
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def go_on(_request: StringValue, context: Any) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                for attempt in (context.write(message("late")), context.send_initial_metadata(()), context.read()):
                    try:
                        seen.put_nowait(await attempt)
                    except asyncio.CancelledError:
                        seen.put_nowait("cancelled")

        method = await harness.serve_one("unary_stream", go_on)
        call = method(message(""))
        await soon(entered.wait())
        call.cancel()

        assert [await soon(seen.get()) for _ in range(3)] == ["cancelled", "cancelled", grpc.aio.EOF]
        assert await soon(call.code()) is grpc.StatusCode.CANCELLED

    async def test_an_exception_after_the_client_has_gone_is_no_error_of_the_log(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        entered, left = asyncio.Event(), asyncio.Event()

        async def fail(_request: StringValue, _context: Any) -> StringValue:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                left.set()
                raise RuntimeError("while cleaning up") from error
            return message("never")

        method = await harness.serve_one("unary_unary", fail)
        call = method(message(""))
        await soon(entered.wait())
        call.cancel()
        await soon(left.wait())

        await soon(harness.peers.channel.close())
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


class TestStatus:
    async def test_an_abort_with_ok_is_unknown(self, harness: Harness) -> None:
        """grpc.aio leaves the client waiting for ever."""

        async def abort(_request: StringValue, context: Any) -> StringValue:
            await context.abort(grpc.StatusCode.OK, "All is well.")
            return message("never")

        method = await harness.serve_one("unary_unary", abort)
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "All is well.")

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_handler_that_cancels_itself_is_a_cancelled_call(self, harness: Harness, kind: str) -> None:
        async def cancel_itself(_requests: Requests, _context: Any) -> Responses:
            raise asyncio.CancelledError
            yield

        method = await harness.serve_one(kind, behaviour(kind, cancel_itself))
        error = await soon(failure(start(method, kind), kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "Cancelled by the server.")

    @pytest.mark.parametrize(("code", "status"), [(5, grpc.StatusCode.NOT_FOUND), (0, None), (99, grpc.StatusCode.UNKNOWN)])
    async def test_a_code_may_be_set_by_its_number(self, harness: Harness, code: int, status: grpc.StatusCode | None) -> None:
        async def set_code(request: StringValue, context: Any) -> StringValue:
            context.set_code(code)
            return request

        method = await harness.serve_one("unary_unary", set_code)
        call = start(method, "unary_unary")

        assert await soon(call.code()) is (status or grpc.StatusCode.OK)

    async def test_an_abort_that_was_caught_for_good_is_logged(self, harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
        async def go_on(request: StringValue, context: Any) -> StringValue:
            with pytest.raises(grpc.aio.AbortError):
                await context.abort(grpc.StatusCode.ABORTED, "Enough.")
            return request

        method = await harness.serve_one("unary_unary", go_on)
        await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert [record.getMessage() for record in caplog.records] == [
            "/test.Channels/Method went on after it had aborted its call: the abort stands."
        ]

    async def test_a_done_callback_that_fails_is_logged_and_undoes_nothing(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[Any] = []

        def fail(_context: Any) -> None:
            raise RuntimeError("a callback's fault")

        async def answer(request: StringValue, context: Any) -> StringValue:
            context.add_done_callback(fail)
            context.add_done_callback(told.append)
            return request

        method = await harness.serve_one("unary_unary", answer)

        assert (await soon(method(message("a")))).value == "a"
        assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == ["a callback's fault"]
        assert len(told) == 1


class TestWriting:
    async def test_a_writer_is_at_most_one_message_ahead(self, harness: Harness) -> None:
        written = []

        async def talk(_request: StringValue, context: Any) -> None:
            for number in range(5):
                await context.write(message(str(number)))
                written.append(number)

        method = await harness.serve_one("unary_stream", talk)
        call = method(message(""))
        await soon(call.initial_metadata())
        for _ in range(10):
            await asyncio.sleep(0)
        assert written == [0]

        assert [(await soon(call.read())).value for _ in range(5)] == ["0", "1", "2", "3", "4"]
        assert await soon(call.read()) is grpc.aio.EOF

    async def test_only_one_write_can_wait(self, harness: Harness) -> None:
        seen: asyncio.Queue[str] = asyncio.Queue()

        async def talk(_request: StringValue, context: Any) -> None:
            await context.write(message("buffered"))
            waiting = asyncio.create_task(context.write(message("waits")))
            await asyncio.sleep(0)
            try:
                await context.write(message("too many"))
            except grpc.aio.UsageError as error:
                seen.put_nowait(str(error))
            await waiting

        method = await harness.serve_one("unary_stream", talk)
        call = method(message(""))

        assert await soon(seen.get()) == "Another write is still waiting: await it before the next."
        assert [(await soon(call.read())).value for _ in range(2)] == ["buffered", "waits"]
        assert await soon(call.read()) is grpc.aio.EOF

    async def test_nothing_can_be_written_after_the_end(self, harness: Harness) -> None:
        contexts: asyncio.Queue[Any] = asyncio.Queue()

        async def leave(_request: StringValue, context: Any) -> None:
            contexts.put_nowait(context)

        method = await harness.serve_one("unary_stream", leave)
        call = method(message(""))
        assert await soon(call.read()) is grpc.aio.EOF

        context = await soon(contexts.get())
        with pytest.raises(grpc.aio.UsageError, match="RPC already finished"):
            await context.write(message("late"))
        with pytest.raises(grpc.aio.UsageError, match="RPC already finished"):
            await context.send_initial_metadata(())
        assert context.done()
