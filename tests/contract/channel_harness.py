"""What the suite of channels stands on: one way to a handler through every kind of channel, and a look at what is left behind."""

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from types import AsyncGeneratorType
from typing import Any, Protocol

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from gateway.inprocess import InProcessChannel
from gateway.rpc.registry import HandlerRegistry, HandlerWrapper

SERVICE = "test.Channels"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
WAIT_SECONDS = 5

Body = Callable[[AsyncIterator[StringValue], Any], AsyncGenerator[StringValue, None]]
"""What a handler does, whatever its kind: reads requests, yields responses. A unary handler returns the first one."""


def message(text: str) -> StringValue:
    return StringValue(value=text)


def behaviour(kind: str, body: Body) -> Callable[..., Any]:
    """Makes of a body the function that a handler of some kind is."""

    async def unary_unary(request: StringValue, context: Any) -> StringValue:
        return await _first(body(_One(request), context))

    async def unary_stream(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        async with aclosing(body(_One(request), context)) as responses:
            async for response in responses:
                yield response

    async def stream_unary(requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return await _first(body(requests, context))

    async def stream_stream(requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async with aclosing(body(requests, context)) as responses:
            async for response in responses:
                yield response

    functions: dict[str, Callable[..., Any]] = {
        "unary_unary": unary_unary,
        "unary_stream": unary_stream,
        "stream_unary": stream_unary,
        "stream_stream": stream_stream,
    }
    return functions[kind]


class _One:
    """A stream of one request. No generator, for none of those may be left half-read."""

    def __init__(self, request: StringValue) -> None:
        self._requests = iter([request])

    def __aiter__(self) -> "_One":
        return self

    async def __anext__(self) -> StringValue:
        for request in self._requests:
            return request
        raise StopAsyncIteration


async def _first(responses: AsyncGenerator[StringValue, None]) -> StringValue:
    async with aclosing(responses) as closing:
        async for response in closing:
            return response
    return message("")


def start(method: Any, kind: str, requests: Iterable[str] = ("hello",), **options: Any) -> Any:
    """Starts a call with requests that are known ahead."""
    if kind.startswith("stream_"):
        return method(iter([message(text) for text in requests]), **options)
    (only,) = requests
    return method(message(only), **options)


async def collect(call: Any, kind: str) -> list[str]:
    """Returns the responses of a call."""
    if kind.endswith("_stream"):
        return [response.value async for response in call]
    return [(await call).value]


async def failure(call: Any, kind: str) -> grpc.aio.AioRpcError:
    """Returns the error that a call ends with."""
    try:
        responses = await collect(call, kind)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"The call was to fail, and answered {responses}.")


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so that tells nobody when it becomes so."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 (grpc's own tasks end unobserved)
            await asyncio.sleep(0.002)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Awaits something that must not take long."""
    return await asyncio.wait_for(awaitable, WAIT_SECONDS)


class Peers(Protocol):
    """A registry's handlers behind a channel of some implementation."""

    channel: grpc.aio.Channel
    responses_ahead: int
    """How many responses of a mebibyte a handler can be ahead of a client that reads none."""
    requests_ahead: int
    """How many requests of a mebibyte a client can be ahead of a handler that reads none."""

    async def open(self, registry: HandlerRegistry, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None: ...

    async def close(self) -> None: ...


class InProcess:
    responses_ahead = 2  # one buffered, and one whose write waits
    requests_ahead = 2

    async def open(self, registry: HandlerRegistry, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self.channel: grpc.aio.Channel = InProcessChannel(registry, interceptors=interceptors)

    async def close(self) -> None:
        await self.channel.close()


class Loopback:
    responses_ahead = 64  # HTTP/2 windows, and the buffers of two sockets
    requests_ahead = 64

    async def open(self, registry: HandlerRegistry, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._server = grpc.aio.server(interceptors=interceptors)
        registry.add_to(self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.channel: grpc.aio.Channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        await soon(self.channel.channel_ready())  # so that no test's deadline has to last for the connection too

    async def close(self) -> None:
        await self.channel.close()
        await self._server.stop(None)


class Harness:
    """Registers a test's handlers, connects to them, and knows afterwards what they have left behind."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self._opened = False
        self._tasks_before = asyncio.all_tasks()
        self._generators: list[weakref.ref[AsyncGenerator[Any, Any]]] = []

    async def serve(
        self,
        behaviours: dict[str, tuple[str, Callable[..., Any]]],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        wrappers: Sequence[HandlerWrapper] = (),
    ) -> dict[str, Any]:
        """Serves functions, each with its kind, under names; returns what calls them."""
        self._watch_generators()
        registry = HandlerRegistry(wrappers)
        handlers = {
            name: getattr(grpc, f"{kind}_rpc_method_handler")(function, StringValue.FromString, StringValue.SerializeToString)
            for name, (kind, function) in behaviours.items()
        }
        registry.add_registered_method_handlers(SERVICE, handlers)
        await self.peers.open(registry, interceptors)
        self._opened = True
        return {name: self.method(name, kind) for name, (kind, _) in behaviours.items()}

    async def serve_one(self, kind: str, function: Callable[..., Any], **options: Any) -> Any:
        """Serves one function; returns what calls it."""
        methods = await self.serve({"Method": (kind, function)}, **options)
        return methods["Method"]

    def method(self, name: str, kind: str) -> Any:
        """Returns what calls a method, served or not."""
        return getattr(self.peers.channel, kind)(f"/{SERVICE}/{name}", StringValue.SerializeToString, StringValue.FromString)

    async def close(self) -> None:
        """Closes the peers and makes sure that no task and no generator is left."""
        if self._opened:
            await soon(self.peers.close())
        await eventually(lambda: not self._leaked_tasks())
        if self._open_generators():
            gc.collect()  # which is slow, and closes those that only wait for it
        await eventually(lambda: not self._open_generators())

    def _watch_generators(self) -> None:
        # An event loop sets its own hooks each time it is run, so this lasts for one test.
        hooks = sys.get_asyncgen_hooks()

        def note(generator: AsyncGenerator[Any, Any]) -> None:
            self._generators.append(weakref.ref(generator))
            if hooks.firstiter is not None:
                hooks.firstiter(generator)

        sys.set_asyncgen_hooks(firstiter=note, finalizer=hooks.finalizer)

    def _leaked_tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - self._tasks_before - {asyncio.current_task()}

    def _open_generators(self) -> list[AsyncGeneratorType[Any, Any]]:
        generators = [each for reference in self._generators if isinstance(each := reference(), AsyncGeneratorType)]
        return [each for each in generators if each.ag_frame is not None and "/tests/" in each.ag_code.co_filename]
