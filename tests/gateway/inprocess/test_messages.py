"""Messages on their way through a process: handed over as objects where both sides mean the same class, else as bytes."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from twinspan.v1 import chat_pb2

from gateway.inprocess import InProcessChannel
from gateway.rpc.registry import HandlerRegistry
from tests.contract.channel_harness import soon

METHOD = "/test.Messages/Pass"


async def passed(
    message: Any, client: tuple[Any, Any], server: tuple[Any, Any], answer: Callable[[Any], Any] = lambda it: it
) -> Any:
    """Sends a message through a handler that returns it, or what it makes of it; each side has a serializer and a deserializer."""

    async def behaviour(request: Any, _context: Any) -> Any:
        return answer(request)

    handler = grpc.unary_unary_rpc_method_handler(behaviour, request_deserializer=server[1], response_serializer=server[0])
    registry = HandlerRegistry()
    registry.add_registered_method_handlers("test.Messages", {"Pass": handler})
    async with InProcessChannel(registry) as channel:
        return await soon(channel.unary_unary(METHOD, *client)(message))


def codec(cls: Any) -> tuple[Any, Any]:
    return cls.SerializeToString, cls.FromString


class Requests:
    """A handler that keeps what it is asked, and answers with it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.seen.append(request)
        return request


async def test_a_message_of_the_class_that_both_sides_mean_is_handed_over_as_a_copy() -> None:
    requests = Requests()
    sent = StringValue(value="text")

    received = await passed(sent, codec(StringValue), codec(StringValue), requests)

    assert requests.seen == [sent]
    assert received == sent
    assert len({id(each) for each in (sent, requests.seen[0], received)}) == 3


async def test_sides_with_classes_of_their_own_meet_on_the_wire_format() -> None:
    requests = Requests()

    received = await passed(StringValue(value="text"), codec(StringValue), codec(BytesValue), requests)

    assert requests.seen == [BytesValue(value=b"text")]
    assert received == StringValue(value="text")


async def test_fields_that_the_schema_does_not_know_arrive() -> None:
    unknown = b"\xfa\x07\x05later"  # field 127, a string
    sent = chat_pb2.CompleteRequest.FromString(unknown)
    sent.chat.model = "m"

    received = await passed(sent, codec(chat_pb2.CompleteRequest), codec(chat_pb2.CompleteRequest))

    assert received.chat.model == "m"
    assert unknown in received.SerializeToString()


@pytest.mark.parametrize("given", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), "bytes"])
async def test_without_serializers_a_method_carries_bytes(given: Any) -> None:
    assert await passed(given, (None, None), (None, None)) == b"bytes"


async def test_without_a_serializer_nothing_but_bytes_can_be_sent() -> None:
    with pytest.raises(TypeError, match="Expected bytes, got int: a method without a serializer carries bytes"):
        await passed(7, (None, None), (None, None))


async def test_bytes_that_change_after_they_were_handed_over_do_not_change_on_the_other_side() -> None:
    kept = bytearray(b"bytes")

    received = await passed(b"", (None, None), (None, None), lambda _: kept)
    kept[0] = 0

    assert received == b"bytes"


async def test_serializers_of_other_kinds_are_used_as_on_the_wire() -> None:
    received = await passed(21, (str, int), (lambda text: text.encode(), lambda text: f"{text}{text}"))

    assert received == 2121


async def test_a_request_that_is_no_message_is_the_callers_error() -> None:
    with pytest.raises(TypeError, match="SerializeToString"):
        await passed(None, codec(StringValue), codec(StringValue))


async def test_a_request_that_the_handlers_class_cannot_read_is_an_error_of_the_call() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await passed(b"\xff", (None, None), codec(StringValue))

    assert raised.value.code() is grpc.StatusCode.UNKNOWN
