"""What a channel does, whichever it is: the in-process channel and grpc.aio's own over a loopback socket pass one suite.

The rules are those of https://grpc.io/docs/guides/ and of grpc.aio's documentation. Where grpc.aio is known to do otherwise than
its documentation says, the in-process channel's own rules are in `tests/gateway/inprocess/`.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from gateway.rpc.registry import behaviour_of
from tests.contract.channel_harness import (
    KINDS,
    SERVICE,
    Harness,
    InProcess,
    Loopback,
    behaviour,
    collect,
    failure,
    message,
    soon,
    start,
)

MEBIBYTE = "x" * (1 << 20)
DETAILS = "grpc-status-details-bin"
STREAMING_REQUESTS = [kind for kind in KINDS if kind.startswith("stream_")]
STREAMING_RESPONSES = [kind for kind in KINDS if kind.endswith("_stream")]

# A wait that `soon` does not bound, or one that does not even let the event loop run, is a failure all the same.
pytestmark = pytest.mark.timeout(15)

Requests = AsyncIterator[StringValue]
Responses = AsyncGenerator[StringValue, None]


@pytest.fixture(params=[InProcess, Loopback])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    harness = Harness(request.param())
    yield harness
    await harness.close()


async def shout(requests: Requests, _context: Any) -> Responses:
    async for request in requests:
        yield message(request.value.upper())


class Hang:
    """A handler that waits until it is cancelled, and says so."""

    def __init__(self, *, say_first: bool = False) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.left = asyncio.Event()
        self.context: Any = None
        self._say_first = say_first

    async def __call__(self, _requests: Requests, context: Any) -> Responses:
        self.context = context
        self.entered.set()
        try:
            if self._say_first:
                yield message("first")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.left.set()


class TestSuccess:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_requests_arrive_in_order_and_so_do_responses(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, shout))
        requests = ["a", "b", "c"] if kind == "stream_stream" else ["a"]

        call = start(method, kind, requests)

        assert await soon(collect(call, kind)) == [text.upper() for text in requests]
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        assert await soon(call.code()) is grpc.StatusCode.OK
        assert await soon(call.details()) == ""
        assert await soon(call.debug_error_string()) == ""

    async def test_a_unary_answer_to_a_stream_has_seen_all_of_it(self, harness: Harness) -> None:
        async def count(requests: Requests, _context: Any) -> StringValue:
            return message(",".join([request.value async for request in requests]))

        method = await harness.serve_one("stream_unary", count)

        assert (await soon(method(iter([message("a"), message("b")])))).value == "a,b"

    @pytest.mark.parametrize("kind", KINDS)
    async def test_the_answer_can_be_had_more_than_once(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, shout))
        call = start(method, kind)

        if kind.endswith("_stream"):
            assert (await soon(call.read())).value == "HELLO"
            assert await soon(call.read()) is grpc.aio.EOF
            assert await soon(call.read()) is grpc.aio.EOF
        else:
            assert await soon(call) == await soon(call) == message("HELLO")

    async def test_an_async_iterator_of_requests_is_read_to_its_end(self, harness: Harness) -> None:
        async def requests() -> Responses:
            for text in ("a", "b"):
                await asyncio.sleep(0)
                yield message(text)

        method = await harness.serve_one("stream_stream", behaviour("stream_stream", shout))

        assert await soon(collect(method(requests()), "stream_stream")) == ["A", "B"]

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_a_handler_may_write_to_its_context_instead_of_yielding(self, harness: Harness, kind: str) -> None:
        async def write(_requests: Any, context: Any) -> None:
            await context.write(message("a"))
            await context.write(message("b"))

        method = await harness.serve_one(kind, write)

        assert await soon(collect(start(method, kind), kind)) == ["a", "b"]

    async def test_client_and_handler_can_talk_in_turns(self, harness: Harness) -> None:
        async def talk(_requests: Any, context: Any) -> None:
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(message(request.value.upper()))
            await context.write(message("bye"))

        method = await harness.serve_one("stream_stream", talk)
        call = method()

        for text in ("a", "b", "c"):
            await soon(call.write(message(text)))
            assert (await soon(call.read())).value == text.upper()
        await soon(call.done_writing())
        await soon(call.done_writing())
        assert (await soon(call.read())).value == "bye"
        assert await soon(call.read()) is grpc.aio.EOF

    async def test_calls_at_the_same_time_get_their_own_answers(self, harness: Harness) -> None:
        methods = await harness.serve({kind: (kind, behaviour(kind, shout)) for kind in KINDS})

        async def one(number: int) -> list[str]:
            kind = KINDS[number % len(KINDS)]
            return await collect(start(methods[kind], kind, [f"call {number}"]), kind)

        answers = await soon(asyncio.gather(*map(one, range(80))))

        assert answers == [[f"CALL {number}"] for number in range(80)]

    async def test_the_handler_sees_none_of_the_clients_context_variables(self, harness: Harness) -> None:
        variable = contextvars.ContextVar("variable", default="unset")

        async def look(_request: StringValue, _context: Any) -> StringValue:
            return message(variable.get())

        method = await harness.serve_one("unary_unary", look)
        variable.set("the client's")

        assert (await soon(method(message("")))).value == "unset"


class TestEmptyStreams:
    async def test_a_stream_of_no_responses_just_ends(self, harness: Harness) -> None:
        async def nothing(_request: StringValue, _context: Any) -> Responses:
            return
            yield

        method = await harness.serve_one("unary_stream", nothing)
        call = start(method, "unary_stream")

        assert await soon(collect(call, "unary_stream")) == []
        assert await soon(call.code()) is grpc.StatusCode.OK

    async def test_a_stream_of_no_requests_just_ends(self, harness: Harness) -> None:
        async def count(requests: Requests, _context: Any) -> StringValue:
            return message(str(len([request async for request in requests])))

        method = await harness.serve_one("stream_unary", count)
        call = method()
        await soon(call.done_writing())

        assert (await soon(call)).value == "0"

    async def test_two_empty_streams_just_end(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_stream", behaviour("stream_stream", shout))

        assert await soon(collect(method(iter([])), "stream_stream")) == []

    async def test_an_empty_message_is_a_message(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_stream", behaviour("stream_stream", shout))

        assert await soon(collect(start(method, "stream_stream", ["", ""]), "stream_stream")) == ["", ""]


class TestHalfClose:
    async def test_the_handler_answers_after_the_last_request(self, harness: Harness) -> None:
        async def answer_at_the_end(requests: Requests, _context: Any) -> Responses:
            texts = [request.value async for request in requests]
            for text in reversed(texts):
                yield message(text)

        method = await harness.serve_one("stream_stream", answer_at_the_end)
        call = method()
        for text in ("a", "b", "c"):
            await soon(call.write(message(text)))
        await soon(call.done_writing())

        assert await soon(collect(call, "stream_stream")) == ["c", "b", "a"]

    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_nothing_can_be_written_after_it(self, harness: Harness, kind: str) -> None:
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = method()
        await soon(hang.entered.wait())
        await soon(call.done_writing())

        with pytest.raises(asyncio.InvalidStateError, match="half closed"):
            await call.write(message("late"))
        call.cancel()


class TestErrors:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_code_message_and_details_arrive_whole(self, harness: Harness, kind: str) -> None:
        info = error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="twinspan", metadata={"model": "gpt-ünknown"})
        packed = any_pb2.Any()
        packed.Pack(info)
        status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="No such modèl.", details=[packed])

        async def fail(_requests: Requests, context: Any) -> Responses:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, status.message, ((DETAILS, status.SerializeToString()), ("x-request-id", "req_1"))
            )
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, fail))
        call = start(method, kind)
        error = await soon(failure(call, kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "No such modèl.")
        trailing = error.trailing_metadata()
        assert trailing is not None
        assert trailing["x-request-id"] == "req_1"
        details = trailing[DETAILS]
        assert isinstance(details, bytes)
        assert status_pb2.Status.FromString(details) == status
        assert error.debug_error_string() == "NOT_FOUND:No such modèl."
        assert await soon(call.code()) is grpc.StatusCode.NOT_FOUND
        assert await soon(call.details()) == "No such modèl."
        assert (await soon(call.trailing_metadata()))["x-request-id"] == "req_1"
        assert not call.cancelled()
        assert call.done()

    async def test_a_whole_status_can_be_aborted_with(self, harness: Harness) -> None:
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="Slow down.")

        async def fail(_request: StringValue, context: Any) -> StringValue:
            await context.abort_with_status(rpc_status.to_status(status))
            return message("never")

        method = await harness.serve_one("unary_unary", fail)
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "Slow down.")
        trailing = error.trailing_metadata()
        assert trailing is not None
        assert trailing[DETAILS] == status.SerializeToString()

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_what_was_sent_before_an_error_is_read_before_it(self, harness: Harness, kind: str) -> None:
        async def fail_late(_requests: Requests, context: Any) -> Responses:
            yield message("a")
            yield message("b")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "The upstream is gone.")

        method = await harness.serve_one(kind, behaviour(kind, fail_late))
        call = start(method, kind)

        assert [(await soon(call.read())).value for _ in range(2)] == ["a", "b"]
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await soon(call.read())
            assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNAVAILABLE, "The upstream is gone.")

    @pytest.mark.parametrize("kind", KINDS)
    async def test_an_exception_of_the_handler_is_unknown_with_its_text(self, harness: Harness, kind: str) -> None:
        async def fail(requests: Requests, _context: Any) -> Responses:
            async for request in requests:
                raise ValueError(f"bad {request.value}")
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, fail))
        error = await soon(failure(start(method, kind), kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: bad hello")

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_code_that_was_set_is_the_status_without_an_abort(self, harness: Harness, kind: str) -> None:
        async def set_code(_requests: Requests, context: Any) -> Responses:
            assert (context.code(), context.details(), context.trailing_metadata()) == (None, "", ())
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details("Not yet.")
            context.set_trailing_metadata((("when", "later"),))
            assert (context.code(), context.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "Not yet.")
            assert context.trailing_metadata() == (("when", "later"),)
            yield message("discarded if unary")

        method = await harness.serve_one(kind, behaviour(kind, set_code))
        error = await soon(failure(start(method, kind), kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "Not yet.")
        trailing = error.trailing_metadata()
        assert trailing is not None
        assert trailing["when"] == "later"

    async def test_an_exception_keeps_the_code_that_was_set(self, harness: Harness) -> None:
        async def fail(_request: StringValue, context: Any) -> StringValue:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            raise NotImplementedError("Method not implemented!")

        method = await harness.serve_one("unary_unary", fail)
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert error.details() == "Unexpected <class 'NotImplementedError'>: Method not implemented!"

    async def test_an_abort_stands_even_if_the_handler_goes_on(self, harness: Harness) -> None:
        async def go_on(_request: StringValue, context: Any) -> StringValue:
            with pytest.raises(grpc.aio.AbortError):
                await context.abort(grpc.StatusCode.ABORTED, "Enough.")
            with pytest.raises(grpc.aio.UsageError):
                await context.abort(grpc.StatusCode.ABORTED, "Enough!")
            return message("never seen")

        method = await harness.serve_one("unary_unary", go_on)
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "Enough.")

    @pytest.mark.parametrize("answer", [None, 7])
    async def test_an_answer_that_is_no_message_is_unknown(self, harness: Harness, answer: Any) -> None:
        async def answer_wrongly(_request: StringValue, _context: Any) -> Any:
            return answer

        method = await harness.serve_one("unary_unary", answer_wrongly)
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert error.code() is grpc.StatusCode.UNKNOWN
        assert "Unexpected <class 'TypeError'>: descriptor 'SerializeToString'" in (error.details() or "")

    @pytest.mark.parametrize("kind", KINDS)
    async def test_an_unknown_method_is_unimplemented(self, harness: Harness, kind: str) -> None:
        await harness.serve_one(kind, behaviour(kind, shout))
        error = await soon(failure(start(harness.method("Nothing", kind), kind), kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_requests_that_fail_cancel_the_call(self, harness: Harness, kind: str) -> None:
        hang = Hang()

        async def requests() -> Responses:
            yield message("a")
            await hang.entered.wait()
            raise RuntimeError("The client's own fault.")

        method = await harness.serve_one(kind, behaviour(kind, hang))

        with pytest.raises(asyncio.CancelledError):
            await soon(collect(method(requests()), kind))
        await soon(hang.cancelled.wait())


class TestDeadlines:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_deadline_ends_the_call_and_cancels_the_handler(self, harness: Harness, kind: str) -> None:
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind, timeout=0.2)
        remaining = call.time_remaining()
        error = await soon(failure(call, kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert 0 <= remaining <= 0.2
        assert call.time_remaining() == 0
        assert not call.cancelled()
        await soon(hang.cancelled.wait())

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_a_deadline_ends_a_stream_that_has_begun(self, harness: Harness, kind: str) -> None:
        hang = Hang(say_first=True)
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind, timeout=0.3)

        assert (await soon(call.read())).value == "first"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await soon(call.read())
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await soon(hang.left.wait())

    @pytest.mark.parametrize("seconds", [0, -1])
    async def test_a_deadline_that_has_passed_ends_the_call_at_once(self, harness: Harness, seconds: float) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", Hang()))
        error = await soon(failure(start(method, "unary_unary", timeout=seconds), "unary_unary"))

        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_the_handler_knows_how_long_the_client_waits(self, harness: Harness) -> None:
        async def tell(_request: StringValue, context: Any) -> StringValue:
            return message(repr(context.time_remaining()))

        method = await harness.serve_one("unary_unary", tell)

        assert (await soon(method(message("")))).value == "None"
        assert method(message("")).time_remaining() is None
        told = float((await soon(method(message(""), timeout=60))).value)
        assert 50 < told < 61  # on the wire it is rounded up

    async def test_a_deadline_reaches_through_the_handler_to_the_calls_that_it_makes(self, harness: Harness) -> None:
        hang = Hang()
        remaining = []

        async def pass_on(_request: StringValue, context: Any) -> StringValue:
            remaining.append(context.time_remaining())
            return StringValue(value=(await harness.method("Inner", "unary_unary")(message(""), timeout=remaining[0])).value)

        methods = await harness.serve({"Outer": ("unary_unary", pass_on), "Inner": ("unary_unary", behaviour("unary_unary", hang))})
        error = await soon(failure(start(methods["Outer"], "unary_unary", timeout=0.3), "unary_unary"))

        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await soon(hang.cancelled.wait())
        assert 0 < remaining[0] < 1  # on the wire it is rounded up
        assert 0 <= hang.context.time_remaining() < 1


class TestCancellationByTheClient:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_it_ends_the_call_at_once_and_cancels_the_handler(self, harness: Harness, kind: str) -> None:
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind)
        await soon(hang.entered.wait())

        assert call.cancel()
        assert not call.cancel()
        assert call.done()
        assert call.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await soon(collect(call, kind))
        assert await soon(call.code()) is grpc.StatusCode.CANCELLED
        assert await soon(call.details()) == "Locally cancelled by application!"
        assert await soon(call.initial_metadata()) == grpc.aio.Metadata()
        assert await soon(call.trailing_metadata()) == grpc.aio.Metadata()
        await soon(hang.cancelled.wait())

    @pytest.mark.parametrize("kind", KINDS)
    async def test_it_can_come_before_the_handler_has_begun(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, shout))
        call = start(method, kind)

        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(collect(call, kind))

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_cancelled_wait_for_the_answer_cancels_the_call(self, harness: Harness, kind: str) -> None:
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind)
        waiting = asyncio.create_task(collect(call, kind))
        await soon(hang.entered.wait())

        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)
        assert call.cancelled()
        await soon(hang.cancelled.wait())

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_it_closes_a_generator_that_waits_for_its_reader(self, harness: Harness, kind: str) -> None:
        closed = asyncio.Event()

        async def talk(_requests: Any, _context: Any) -> Responses:
            try:
                while True:
                    yield message(MEBIBYTE)
            finally:
                closed.set()

        method = await harness.serve_one(kind, talk)
        call = start(method, kind)
        assert (await soon(call.read())).value == MEBIBYTE

        call.cancel()
        await soon(closed.wait())

    async def test_leaving_the_loop_over_the_responses_leaves_the_call_alive(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_stream", behaviour("stream_stream", shout))
        call = start(method, "stream_stream", ["a", "b", "c"])

        async for response in call:
            assert response.value == "A"
            break
        assert not call.done()
        assert await soon(collect(call, "stream_stream")) == ["B", "C"]


class TestCancellationByTheServer:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_it_is_an_error_of_the_call_and_no_cancellation_of_the_clients_task(self, harness: Harness, kind: str) -> None:
        async def give_up(_requests: Requests, context: Any) -> Responses:
            await context.abort(grpc.StatusCode.CANCELLED, "The server goes home.")
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, give_up))
        call = start(method, kind)
        error = await soon(failure(call, kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "The server goes home.")
        assert call.cancelled()


class TestMetadata:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_the_handler_sees_what_the_client_sends(self, harness: Harness, kind: str) -> None:
        sent = (
            ("x-one", "1"),
            ("x-many", "a"),
            ("x-many", "b"),
            ("x-empty", ""),
            ("x-spaced", " a b "),
            ("x-raw-bin", b"\x00\xff"),
        )
        seen: list[Any] = []

        async def look(_requests: Requests, context: Any) -> Responses:
            seen.extend(context.invocation_metadata())
            yield message("")

        method = await harness.serve_one(kind, behaviour(kind, look))
        await soon(collect(start(method, kind, metadata=sent), kind))

        assert tuple(pair for pair in seen if pair[0] != "user-agent") == sent
        assert [(pair.key, pair.value) for pair in seen if pair.key == "x-one"] == [("x-one", "1")]

    @pytest.mark.parametrize(
        "metadata", [grpc.aio.Metadata(("a", "1"), ("b", "2")), [("a", "1"), ("b", "2")], (("a", b"1"), ("b", "2"))]
    )
    async def test_it_may_be_given_in_any_of_its_forms(self, harness: Harness, metadata: Any) -> None:
        seen: list[Any] = []

        async def look(_request: StringValue, context: Any) -> StringValue:
            seen.extend(context.invocation_metadata())
            return message("")

        method = await harness.serve_one("unary_unary", look)
        await soon(method(message(""), metadata=metadata))

        assert [pair for pair in seen if pair[0] != "user-agent"] == [("a", "1"), ("b", "2")]

    @pytest.mark.parametrize("key", ["te", "content-type", "user-agent"])
    async def test_the_transports_own_keys_are_not_the_clients(self, harness: Harness, key: str) -> None:
        seen: list[Any] = []

        async def look(_request: StringValue, context: Any) -> StringValue:
            seen.extend(context.invocation_metadata())
            return message("")

        method = await harness.serve_one("unary_unary", look)
        await soon(method(message(""), metadata=((key, "mine"),)))

        assert (key, "mine") not in seen

    @pytest.mark.parametrize(
        ("pair", "error"),
        [
            (("UPPER", "x"), grpc.aio.InternalError),
            ((":path", "x"), grpc.aio.InternalError),
            (("a b", "x"), grpc.aio.InternalError),
            (("", "x"), grpc.aio.InternalError),
            (("k", "é"), grpc.aio.InternalError),
            (("k", "a\r\nb: c"), grpc.aio.InternalError),
            (("k", "\x7f"), grpc.aio.InternalError),
            (("k", 1), TypeError),
            (("k-bin", "text"), TypeError),
        ],
    )
    async def test_what_is_not_legal_is_refused(self, harness: Harness, pair: Any, error: type[Exception]) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout))

        with pytest.raises(error):
            await soon(method(message(""), metadata=(pair,)))

    @pytest.mark.parametrize(
        "kind", [kind for kind in KINDS if kind != "unary_unary"]
    )  # grpc.aio's clients get all of that one at once
    async def test_initial_metadata_can_be_read_before_the_answer(self, harness: Harness, kind: str) -> None:
        read = asyncio.Event()

        async def announce(_requests: Requests, context: Any) -> Responses:
            await context.send_initial_metadata((("x-model", "m"), ("x-raw-bin", b"\x01")))
            with pytest.raises(grpc.aio.UsageError):
                await context.send_initial_metadata((("x-model", "again"),))
            await read.wait()
            yield message("answer")

        method = await harness.serve_one(kind, behaviour(kind, announce))
        call = start(method, kind)

        assert await soon(call.initial_metadata()) == grpc.aio.Metadata(("x-model", "m"), ("x-raw-bin", b"\x01"))
        assert not call.done()
        read.set()
        assert await soon(collect(call, kind)) == ["answer"]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_initial_metadata_is_empty_if_the_handler_sends_none(self, harness: Harness, kind: str) -> None:
        method = await harness.serve_one(kind, behaviour(kind, shout))
        call = start(method, kind)

        assert await soon(call.initial_metadata()) == grpc.aio.Metadata()
        await soon(collect(call, kind))

    @pytest.mark.parametrize("kind", KINDS)
    async def test_initial_metadata_goes_with_an_error_too(self, harness: Harness, kind: str) -> None:
        read = asyncio.Event()

        async def fail(_requests: Requests, context: Any) -> Responses:
            await context.send_initial_metadata((("x-request-id", "req_1"),))
            await read.wait()
            await context.abort(grpc.StatusCode.INTERNAL, "Broken.")
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, fail))
        call = start(method, kind)
        # grpc.aio's clients get all of a unary call at once. Of a stream they may take the status first, if both came together,
        # and never look at the initial metadata again.
        if kind != "unary_unary":
            await soon(call.initial_metadata())
        read.set()
        error = await soon(failure(call, kind))

        assert error.initial_metadata() == grpc.aio.Metadata(("x-request-id", "req_1"))

    @pytest.mark.parametrize("kind", KINDS)
    async def test_trailers_go_with_success(self, harness: Harness, kind: str) -> None:
        async def answer(_requests: Requests, context: Any) -> Responses:
            context.set_trailing_metadata((("x-cost", "1"),))
            context.set_trailing_metadata((("x-cost", "2"), ("x-raw-bin", b"\xfe")))
            yield message("answer")

        method = await harness.serve_one(kind, behaviour(kind, answer))
        call = start(method, kind)
        await soon(collect(call, kind))

        assert await soon(call.trailing_metadata()) == grpc.aio.Metadata(("x-cost", "2"), ("x-raw-bin", b"\xfe"))

    @pytest.mark.parametrize("kind", KINDS)
    async def test_trailers_that_were_set_go_with_an_abort_and_an_exception_too(self, harness: Harness, kind: str) -> None:
        async def fail(requests: Requests, context: Any) -> Responses:
            context.set_trailing_metadata((("x-cost", "1"),))
            async for request in requests:
                if request.value == "abort":
                    await context.abort(grpc.StatusCode.INTERNAL, "Broken.")
                raise RuntimeError
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, fail))
        for way in ("abort", "raise"):
            error = await soon(failure(start(method, kind, [way]), kind))
            assert error.trailing_metadata() == grpc.aio.Metadata(("x-cost", "1"))

    @pytest.mark.parametrize("pair", [("UPPER", "x"), ("k", "é")])
    async def test_metadata_of_the_server_that_is_not_legal_is_an_internal_error(self, harness: Harness, pair: Any) -> None:
        async def trail(_request: StringValue, context: Any) -> StringValue:
            context.set_trailing_metadata((pair,))
            return message("")

        async def announce(_request: StringValue, context: Any) -> StringValue:
            with pytest.raises(grpc.aio.InternalError):
                await context.send_initial_metadata((pair,))
            return message("")

        methods = await harness.serve({"Trail": ("unary_unary", trail), "Announce": ("unary_unary", announce)})
        for method in methods.values():
            error = await soon(failure(start(method, "unary_unary"), "unary_unary"))
            assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Invalid metadata")

    @pytest.mark.parametrize("metadata", [{"a": "b"}, (["a", "b"],), (("a", 1),), (("a",),)])
    async def test_trailers_of_a_wrong_type_are_the_handlers_fault(self, harness: Harness, metadata: Any) -> None:
        async def trail(_request: StringValue, context: Any) -> StringValue:
            with pytest.raises(TypeError):
                context.set_trailing_metadata(metadata)
            return message("unharmed")

        method = await harness.serve_one("unary_unary", trail)

        assert (await soon(method(message("")))).value == "unharmed"


class TestBackpressure:
    async def test_a_handler_cannot_run_ahead_of_a_client_that_does_not_read(self, harness: Harness) -> None:
        written = 0

        async def talk(_request: StringValue, _context: Any) -> Responses:
            nonlocal written
            for _ in range(400):
                written += 1
                yield message(MEBIBYTE)

        methods = await harness.serve({"Talk": ("unary_stream", talk), "Echo": ("unary_unary", behaviour("unary_unary", shout))})
        call = methods["Talk"](message(""))
        for read in range(1, 4):
            await soon(call.read())
            await turn_over(methods["Echo"])
            assert read <= written <= read + harness.peers.responses_ahead
        call.cancel()

    async def test_a_client_cannot_run_ahead_of_a_handler_that_does_not_read(self, harness: Harness) -> None:
        begin = asyncio.Event()
        written = 0

        async def count(requests: Requests, _context: Any) -> StringValue:
            await begin.wait()
            return message(str(len([request async for request in requests])))

        async def write(call: Any) -> None:
            nonlocal written
            for _ in range(100):
                await call.write(message(MEBIBYTE))
                written += 1
            await call.done_writing()

        methods = await harness.serve({"Count": ("stream_unary", count), "Echo": ("unary_unary", behaviour("unary_unary", shout))})
        call = methods["Count"]()
        writing = asyncio.create_task(write(call))
        await turn_over(methods["Echo"])
        assert written <= harness.peers.requests_ahead

        begin.set()
        await soon(writing)
        assert (await soon(call)).value == "100"

    async def test_an_iterator_of_requests_is_not_read_ahead_either(self, harness: Harness) -> None:
        begin = asyncio.Event()
        taken = 0

        def requests() -> Any:
            nonlocal taken
            for _ in range(100):
                taken += 1
                yield message(MEBIBYTE)

        async def count(requests: Requests, _context: Any) -> StringValue:
            await begin.wait()
            return message(str(len([request async for request in requests])))

        methods = await harness.serve({"Count": ("stream_unary", count), "Echo": ("unary_unary", behaviour("unary_unary", shout))})
        call = methods["Count"](requests())
        await turn_over(methods["Echo"])
        assert taken <= harness.peers.requests_ahead

        begin.set()
        assert (await soon(call)).value == "100"


class TestHandOver:
    """A message changed on one side after it was handed over never changes on the other."""

    @pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
    async def test_a_request_belongs_to_each_side_alone(self, harness: Harness, kind: str) -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def change(requests: Requests, _context: Any) -> Responses:
            async for request in requests:
                seen = request.value
                request.value = "the handler's"
                arrived.set()
                await go_on.wait()
                yield message(f"{seen}, {request.value}")

        method = await harness.serve_one(kind, behaviour(kind, change))
        request = message("as sent")
        call = method(request) if kind == "unary_unary" else method(iter([request]))
        await soon(arrived.wait())
        assert request.value == "as sent"

        request.value = "the client's"
        go_on.set()
        assert await soon(collect(call, kind)) == ["as sent, the handler's"]
        assert request.value == "the client's"

    async def test_a_unary_response_belongs_to_each_side_alone(self, harness: Harness) -> None:
        kept = message("kept")

        async def answer(_request: StringValue, _context: Any) -> StringValue:
            return kept

        method = await harness.serve_one("unary_unary", answer)
        first = await soon(method(message("")))
        first.value = "the client's"
        assert kept.value == "kept"

        kept.value = "the handler's"
        assert first.value == "the client's"
        assert (await soon(method(message("")))).value == "the handler's"

    @pytest.mark.parametrize("kind", STREAMING_RESPONSES)
    async def test_a_handler_may_fill_the_same_message_again_and_again(self, harness: Harness, kind: str) -> None:
        async def count(_requests: Any, _context: Any) -> Responses:
            one = StringValue()
            for number in range(5):
                one.value = str(number)
                yield one

        method = await harness.serve_one(kind, count)

        assert await soon(collect(start(method, kind), kind)) == ["0", "1", "2", "3", "4"]

    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_a_client_may_fill_the_same_message_again_and_again(self, harness: Harness, kind: str) -> None:
        async def join(requests: Requests, _context: Any) -> Responses:
            yield message(",".join([request.value async for request in requests]))

        method = await harness.serve_one(kind, behaviour(kind, join))
        call = method()
        one = StringValue()
        for number in range(5):
            one.value = str(number)
            await soon(call.write(one))
        await soon(call.done_writing())

        assert await soon(collect(call, kind)) == ["0,1,2,3,4"]


class TestAHandlerThatStopsEarly:
    async def test_it_answers_while_the_client_still_writes(self, harness: Harness) -> None:
        async def take_one(requests: Requests, _context: Any) -> StringValue:
            async for request in requests:
                return message(f"only {request.value}")
            return message("")

        method = await harness.serve_one("stream_unary", take_one)
        call = method()
        await soon(call.write(message("a")))

        assert (await soon(call)).value == "only a"
        assert await soon(call.code()) is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError, match="RPC already finished"):
            await call.write(message("b"))
        await call.done_writing()

    @pytest.mark.parametrize("kind", STREAMING_REQUESTS)
    async def test_a_client_that_only_writes_is_not_left_waiting(self, harness: Harness, kind: str) -> None:
        async def refuse(requests: Requests, context: Any) -> Responses:
            async for _ in requests:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Not you.")
            yield message("never")

        method = await harness.serve_one(kind, behaviour(kind, refuse))
        call = method()

        async def write_for_ever() -> None:
            while True:
                await call.write(message(MEBIBYTE))

        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await soon(write_for_ever())
        assert call.done()

    async def test_requests_of_an_iterator_are_let_go(self, harness: Harness) -> None:
        closed = asyncio.Event()

        async def requests() -> Responses:
            try:
                while True:
                    yield message("more")
                    await asyncio.sleep(0)
            finally:
                closed.set()

        async def take_one(requests: Requests, _context: Any) -> StringValue:
            async for request in requests:
                return request
            return message("")

        method = await harness.serve_one("stream_unary", take_one)

        assert (await soon(method(requests()))).value == "more"
        await soon(closed.wait())


class TestWrongUse:
    async def test_read_and_iteration_do_not_mix(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_stream", behaviour("stream_stream", shout))
        reading, iterating = method(), method()
        await soon(reading.write(message("a")))
        await soon(reading.read())
        aiter(iterating)

        with pytest.raises(grpc.aio.UsageError):
            aiter(reading)
        with pytest.raises(grpc.aio.UsageError):
            await iterating.read()
        reading.cancel()
        iterating.cancel()

    async def test_write_and_an_iterator_of_requests_do_not_mix(self, harness: Harness) -> None:
        method = await harness.serve_one("stream_unary", behaviour("stream_unary", shout))
        call = start(method, "stream_unary")

        with pytest.raises(grpc.aio.UsageError):
            await call.write(message("a"))
        with pytest.raises(grpc.aio.UsageError):
            await call.done_writing()
        await soon(call)

    async def test_call_credentials_need_another_channel(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout))

        with pytest.raises(grpc.aio.UsageError, match="secure channels"):
            await method(message(""), credentials=grpc.access_token_call_credentials("token"))

    async def test_a_unary_handler_cannot_write(self, harness: Harness) -> None:
        async def write(_request: StringValue, context: Any) -> StringValue:
            with pytest.raises(Exception, match=r"unary|Expected bytes"):
                await context.write(message("early"))
            return message("returned")

        method = await harness.serve_one("unary_unary", write)

        assert (await soon(method(message("")))).value == "returned"


class TestOptionsAndState:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_wait_for_ready_and_compression_are_accepted(self, harness: Harness, kind: str) -> None:
        async def compress(requests: Requests, context: Any) -> Responses:
            context.set_compression(grpc.Compression.Gzip)
            context.disable_next_message_compression()
            async for request in requests:
                yield request

        method = await harness.serve_one(kind, behaviour(kind, compress))
        call = start(method, kind, wait_for_ready=True, compression=grpc.Compression.Gzip)

        assert await soon(collect(call, kind)) == ["hello"]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_done_callbacks_are_told_of_the_end_once(self, harness: Harness, kind: str) -> None:
        told: list[Any] = []
        method = await harness.serve_one(kind, behaviour(kind, shout))
        call = start(method, kind)
        call.add_done_callback(told.append)
        assert told == []

        await soon(collect(call, kind))
        call.add_done_callback(told.append)
        assert told == [call, call]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_done_callbacks_are_told_of_a_cancellation(self, harness: Harness, kind: str) -> None:
        told: list[Any] = []
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind)
        call.add_done_callback(told.append)
        await soon(hang.entered.wait())

        call.cancel()
        assert told == [call]

    async def test_the_handlers_done_callbacks_are_called_however_it_ends(self, harness: Harness) -> None:
        ended: asyncio.Queue[str] = asyncio.Queue()

        async def end(request: StringValue, context: Any) -> StringValue:
            context.add_done_callback(
                lambda same: ended.put_nowait(request.value if same.done() or request.value == "hang" else "?")
            )
            assert not context.done()
            assert not context.cancelled()
            if request.value == "raise":
                raise RuntimeError
            if request.value == "hang":
                await asyncio.Event().wait()
            return request

        method = await harness.serve_one("unary_unary", end)
        await soon(method(message("return")))
        assert await soon(ended.get()) == "return"
        await soon(failure(method(message("raise")), "unary_unary"))
        assert await soon(ended.get()) == "raise"
        await soon(failure(method(message("hang"), timeout=0.1), "unary_unary"))
        assert await soon(ended.get()) == "hang"

    async def test_wait_for_connection_raises_for_a_call_that_has_failed(self, harness: Harness) -> None:
        await harness.serve_one("unary_unary", behaviour("unary_unary", shout))
        call = harness.method("Nothing", "unary_unary")(message(""))
        await soon(call.code())

        with pytest.raises(grpc.aio.AioRpcError):
            await soon(call.wait_for_connection())

    async def test_the_handler_can_ask_about_its_caller(self, harness: Harness) -> None:
        async def ask(_request: StringValue, context: Any) -> StringValue:
            assert context.peer_identities() is None
            assert context.peer_identity_key() is None
            assert isinstance(context.auth_context(), dict)
            return message(context.peer())

        method = await harness.serve_one("unary_unary", ask)

        assert (await soon(method(message("")))).value

    async def test_the_channel_is_ready_until_it_is_closed(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout))
        channel = harness.peers.channel
        await soon(channel.channel_ready())
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        waiting = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        await soon(method(message("")))
        assert not waiting.done()

        await soon(channel.close())
        await soon(waiting)
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        await soon(channel.close())
        with pytest.raises(grpc.aio.UsageError, match="Channel is closed"):
            method(message(""))

    @pytest.mark.parametrize("kind", KINDS)
    async def test_closing_the_channel_cancels_its_calls(self, harness: Harness, kind: str) -> None:
        hang = Hang()
        method = await harness.serve_one(kind, behaviour(kind, hang))
        call = start(method, kind)
        await soon(hang.entered.wait())

        await soon(harness.peers.channel.close())
        assert call.cancelled()
        await soon(hang.left.wait())

    async def test_closing_the_channel_with_grace_lets_calls_end(self, harness: Harness) -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def answer(_request: StringValue, _context: Any) -> StringValue:
            entered.set()
            await go_on.wait()
            return message("in time")

        method = await harness.serve_one("unary_unary", answer)
        call = asyncio.ensure_future(_value(method(message(""))))
        await soon(entered.wait())
        closing = asyncio.create_task(harness.peers.channel.close(grace=4))
        await asyncio.sleep(0)
        go_on.set()

        assert await soon(call) == "in time"
        await soon(closing)


class Recording(grpc.aio.ServerInterceptor):
    """Notes what it sees, and lets it pass."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self._name = name
        self._seen = seen

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        tokens = [value for key, value in handler_call_details.invocation_metadata if key == "x-token"]
        self._seen.append((self._name, handler_call_details.method, tokens))
        return await continuation(handler_call_details)


class Deciding(grpc.aio.ServerInterceptor):
    """Answers by itself, with a handler or with none, or fails."""

    def __init__(self, decide: Callable[[], Any]) -> None:
        self._decide = decide

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._decide()


class TestInterceptors:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_they_run_in_order_before_the_handler(self, harness: Harness, kind: str) -> None:
        seen: list[Any] = []
        interceptors = (Recording("first", seen), Recording("second", seen))
        method = await harness.serve_one(kind, behaviour(kind, shout), interceptors=interceptors)

        assert await soon(collect(start(method, kind, metadata=(("x-token", "t"),)), kind)) == ["HELLO"]
        assert seen == [("first", f"/{SERVICE}/Method", ["t"]), ("second", f"/{SERVICE}/Method", ["t"])]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_one_may_answer_in_the_handlers_place(self, harness: Harness, kind: str) -> None:
        async def refuse(_requests: Requests, context: Any) -> Responses:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Who are you?")
            yield message("never")

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        handler = make(behaviour(kind, refuse), StringValue.FromString, StringValue.SerializeToString)
        method = await harness.serve_one(kind, behaviour(kind, shout), interceptors=(Deciding(lambda: handler),))
        error = await soon(failure(start(method, kind), kind))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "Who are you?")

    async def test_one_may_serve_a_method_that_nobody_has_registered(self, harness: Harness) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            behaviour("unary_unary", shout), StringValue.FromString, StringValue.SerializeToString
        )
        await harness.serve_one("unary_unary", behaviour("unary_unary", shout), interceptors=(Deciding(lambda: handler),))

        assert (await soon(harness.method("Nothing", "unary_unary")(message("a")))).value == "A"

    async def test_one_may_say_that_there_is_no_such_method(self, harness: Harness) -> None:
        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout), interceptors=(Deciding(lambda: None),))
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_an_exception_of_one_is_unknown(self, harness: Harness) -> None:
        def fail() -> None:
            raise ValueError("no")

        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout), interceptors=(Deciding(fail),))
        error = await soon(failure(start(method, "unary_unary"), "unary_unary"))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: no")

    async def test_one_that_is_no_server_interceptor_is_refused(self, harness: Harness) -> None:
        with pytest.raises(ValueError, match="nterceptor"):
            await harness.serve_one("unary_unary", behaviour("unary_unary", shout), interceptors=(object(),))

    async def test_wrappers_run_once_at_registration_and_around_every_call(self, harness: Harness) -> None:
        events: list[str] = []

        def named(name: str) -> Callable[[str, Any], Any]:
            def wrap(method: str, handler: Any) -> Any:
                events.append(f"wrap {name} {method}")
                inner = behaviour_of(handler)

                async def around(request: StringValue, context: Any) -> Any:
                    events.append(f"enter {name}")
                    return await inner(request, context)

                return grpc.unary_unary_rpc_method_handler(around, handler.request_deserializer, handler.response_serializer)

            return wrap

        method = await harness.serve_one("unary_unary", behaviour("unary_unary", shout), wrappers=(named("outer"), named("inner")))
        for _ in range(2):
            await soon(method(message("")))

        wrapped = [f"wrap inner /{SERVICE}/Method", f"wrap outer /{SERVICE}/Method"]
        assert events == [*wrapped, *["enter outer", "enter inner"] * 2]


async def turn_over(echo: Any) -> None:
    """Makes calls to and fro, in which time whoever can run ahead has done so."""
    for _ in range(20):
        await soon(echo(message("")))


async def _value(call: Awaitable[StringValue]) -> str:
    return (await call).value
