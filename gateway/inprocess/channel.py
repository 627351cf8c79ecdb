"""The in-process channel: generated stubs call the core's handlers without a network and without serialising.

Above it: the bridge, which cannot tell this channel from one of `grpc.aio`. Below it: the handlers that the network server serves
too, from one registry. Models, for the rules and not for code: grpchan's inprocgrpc and grpc-java's in-process transport.

What the wire has and this has not: compression, a limit of message sizes, call credentials, a `user-agent`, an authenticated peer.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from gateway.inprocess.calls import LOCAL_CANCELLATION_DETAILS
from gateway.inprocess.metadata import checked
from gateway.inprocess.multicallables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from gateway.inprocess.pipe import Pipe
from gateway.inprocess.rpc import Rpc
from gateway.inprocess.serve import HandlerCallDetails, Kind, Served, fits, serve, serve_intercepted
from gateway.rpc.registry import HandlerRegistry

_CLOSED = "Channel is closed."


class InProcessChannel(grpc.aio.Channel):
    """Calls the handlers of a registry, each call in a task of its own that starts when the call is made.

    A channel belongs to the event loop in which its first call is made.
    """

    def __init__(self, registry: HandlerRegistry, *, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        """Makes a channel that is ready.

        Args:
            registry: Where the handlers are. They may be registered later than the channel is made.
            interceptors: Asked for the handler of every call, in this order. The core's own are in the registry's handlers already.

        Raises:
            ValueError: One of the interceptors is no server interceptor.
        """
        for interceptor in interceptors:
            if not isinstance(interceptor, grpc.aio.ServerInterceptor):
                raise ValueError(f"{interceptor!r} is no grpc.aio.ServerInterceptor.")  # noqa: TRY004 (as grpc.aio.server does)
        self._registry = registry
        self._interceptors = tuple(interceptors)
        self._served: dict[str, Served] = {}
        self._live: set[Rpc] = set()
        self._closed = False
        self._closing: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: Any = None
    ) -> Any:
        """Returns what calls a method with one request and one response."""
        return UnaryUnary(self.begin, method, request_serializer, response_deserializer)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: Any = None
    ) -> Any:
        """Returns what calls a method with one request and a stream of responses."""
        return UnaryStream(self.begin, method, request_serializer, response_deserializer)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: Any = None
    ) -> Any:
        """Returns what calls a method with a stream of requests and one response."""
        return StreamUnary(self.begin, method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: Any = None
    ) -> Any:
        """Returns what calls a method with two streams."""
        return StreamStream(self.begin, method, request_serializer, response_deserializer)

    async def close(self, grace: float | None = None) -> None:
        """Takes no more calls, and waits for those under way and for their handlers. Idempotent.

        Args:
            grace: Seconds that calls have to end by themselves; what is left then is cancelled. None: all are cancelled at once.

        Raises:
            ValueError: `grace` is negative.
        """
        if grace is not None and grace < 0:
            raise ValueError(f"grace must be 0 or more seconds, not {grace}.")
        if self._closed:
            return
        self._closed = True
        if self._closing is not None:
            self._closing.set()
        tasks = [
            task for rpc in self._live for task in (rpc.task, rpc.feeder) if task is not None and task is not asyncio.current_task()
        ]
        if grace and tasks:
            await asyncio.wait(tasks, timeout=grace)
        for rpc in list(self._live):
            rpc.cancel(LOCAL_CANCELLATION_DETAILS)
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 (there is nothing to connect)
        """Returns `READY`, or `SHUTDOWN` once the channel is closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state is another than the given one; the only change that there is is the close."""
        if self.get_state() is not last_observed_state:
            return
        if self._closed:
            await asyncio.get_running_loop().create_future()  # as over a network: nothing follows SHUTDOWN
        if self._closing is None:
            self._closing = asyncio.Event()
        await self._closing.wait()

    async def channel_ready(self) -> None:
        """Returns at once.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        if self._closed:
            raise grpc.aio.UsageError(_CLOSED)

    def begin(
        self, method: str, kind: Kind, request: Any, timeout: float | None, metadata: Any, credentials: grpc.CallCredentials | None
    ) -> Rpc:
        """Starts an RPC.

        Args:
            method: The full name of the method.
            kind: Whether the client sends a stream, and whether it expects one.
            request: What the client hands over, if the request is unary.
            timeout: Seconds until the deadline, or None.
            metadata: What the client sends with the call, or None.
            credentials: Must be None.

        Raises:
            grpc.aio.InternalError: A key or a value of the metadata is not legal.
            grpc.aio.UsageError: The channel is closed, or there are credentials.
            TypeError: A key or a value of the metadata is of a wrong type.
        """
        if self._closed:
            raise grpc.aio.UsageError(_CLOSED)
        if credentials is not None:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels")
        loop = self._loop
        if loop is None:  # kept, because asking for it costs a system call
            loop = self._loop = asyncio.get_running_loop()
        rpc = Rpc(loop, method, checked(metadata) if metadata else (), self._live)
        request_streaming, response_streaming = kind
        if request_streaming:
            rpc.requests = Pipe(loop)
        if response_streaming:
            rpc.responses = Pipe(loop)
        if timeout is not None:
            rpc.limit(timeout)
            if rpc.code is not None:
                return rpc
        if self._interceptors:
            rpc.run(serve_intercepted(rpc, self._registry, self._interceptors, request, kind=kind))
            return rpc
        served = self._served.get(method)
        if served is None:
            served = self._resolve(method)
        if fits(rpc, served, kind) and served is not None:
            rpc.run(serve(rpc, served, request))
        return rpc

    def _resolve(self, method: str) -> Served | None:
        handler = self._registry.lookup(HandlerCallDetails(method, ()))
        if handler is None:
            return None
        served = self._served[method] = Served(handler)
        return served
