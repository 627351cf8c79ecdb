"""Runs a handler for one RPC in one process, and turns each way in which it can end into the end of the RPC.

Above it: `gateway.inprocess.channel`, which starts these coroutines as tasks. Below it: the handlers of the registry.
"""

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc

from gateway.inprocess.context import ServicerContext
from gateway.inprocess.messages import adoptions, snapshots
from gateway.inprocess.rpc import Rpc
from gateway.rpc.registry import Handler, HandlerRegistry, behaviour_of

_log = logging.getLogger(__name__)

_EOF = grpc.aio.EOF
Kind: TypeAlias = tuple[bool, bool]
"""Whether the requests of a call are a stream, and whether its responses are."""


class HandlerCallDetails(grpc.HandlerCallDetails):
    """What an interceptor is told of an RPC."""

    __slots__ = ("invocation_metadata", "method")

    def __init__(self, method: str, invocation_metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class Served:
    """A handler, looked into once.

    Attributes:
        behaviour: The servicer's function.
        request_streaming: Whether it takes a stream.
        response_streaming: Whether it answers with a stream.
        yields: Whether it is an async generator, and not a coroutine that writes to its context.
        adopt: Makes a request of what the client handed over.
        snapshot: Makes of a response what is handed to the client.
    """

    __slots__ = ("adopt", "behaviour", "request_streaming", "response_streaming", "snapshot", "yields")

    def __init__(self, handler: Handler) -> None:
        self.behaviour: Callable[..., Any] = behaviour_of(handler)
        self.request_streaming: bool = handler.request_streaming
        self.response_streaming: bool = handler.response_streaming
        self.yields = inspect.isasyncgenfunction(self.behaviour)
        self.adopt = adoptions(handler.request_deserializer)
        self.snapshot = snapshots(handler.response_serializer)


class _Requests:
    """The stream of requests, as a handler iterates over it."""

    __slots__ = ("_context",)

    def __init__(self, context: ServicerContext) -> None:
        self._context = context

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is _EOF:
            raise StopAsyncIteration
        return message


async def serve(rpc: Rpc, served: Served, request: Any) -> None:
    """Runs a handler to its end.

    Args:
        rpc: The RPC.
        served: The handler.
        request: What the client handed over, if the request is unary.
    """
    rpc.started = True
    if rpc.code is not None:  # abandoned before it began: a handler never sees such a call
        rpc.retire()
        return
    context = ServicerContext(rpc, served.adopt, served.snapshot)
    try:
        given = _Requests(context) if served.request_streaming else served.adopt(request)
        if not served.response_streaming:
            context.return_unary(await served.behaviour(given, context))
        elif served.yields:
            await _drain(served.behaviour(given, context), context)
            context.return_stream()
        else:
            await served.behaviour(given, context)
            context.return_stream()
    except Exception as error:  # noqa: BLE001 (a handler may raise anything, and the client learns of all of it)
        if not context.aborted_by(error):
            context.fail(error)
    except BaseException:
        # Not the client's doing, or the call would have its status: the event loop stops, or the handler cancelled itself.
        rpc.complete(grpc.StatusCode.CANCELLED, "Cancelled by the server.", ())
        raise
    finally:
        rpc.retire()
        context.close()


async def serve_intercepted(
    rpc: Rpc, registry: HandlerRegistry, interceptors: Sequence[grpc.aio.ServerInterceptor], request: Any, *, kind: Kind
) -> None:
    """Asks interceptors for the handler, and runs it.

    Args:
        rpc: The RPC.
        registry: Where the last interceptor's continuation finds the handler.
        interceptors: Asked in this order.
        request: What the client handed over, if the request is unary.
        kind: Whether the client sends a stream, and whether it expects one.
    """
    rpc.started = True
    if rpc.code is not None:
        rpc.retire()
        return
    details = HandlerCallDetails(rpc.method, rpc.invocation_metadata)
    try:
        handler = await _ask(interceptors, registry, details)
        served = None if handler is None else Served(handler)
    except Exception as error:  # noqa: BLE001 (an interceptor may raise anything, as a handler may)
        _log.exception("An interceptor of %s failed.", rpc.method)
        rpc.complete(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}", ())
    except BaseException:
        rpc.complete(grpc.StatusCode.CANCELLED, "Cancelled by the server.", ())
        raise
    else:
        if fits(rpc, served, kind) and served is not None:
            await serve(rpc, served, request)
    finally:
        rpc.retire()


def fits(rpc: Rpc, served: Served | None, kind: Kind) -> bool:
    """Returns whether a handler can serve an RPC; if not, the RPC is over.

    Args:
        rpc: The RPC.
        served: The handler, if there is one.
        kind: Whether the client sends a stream, and whether it expects one.
    """
    if served is None:
        rpc.complete(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())
        return False
    if (served.request_streaming, served.response_streaming) != kind:
        rpc.complete(
            grpc.StatusCode.UNIMPLEMENTED, f"{rpc.method} is not of the kind (unary or streaming) that the client takes it for.", ()
        )
        return False
    return True


async def _drain(responses: Any, context: ServicerContext) -> None:
    """Writes what a handler yields. The generator is closed here and now, however that ends."""
    try:
        async for response in responses:
            blocked = context.send(response)
            if blocked is not None:
                await blocked
    finally:
        await responses.aclose()


async def _ask(
    interceptors: Sequence[grpc.aio.ServerInterceptor], registry: HandlerRegistry, details: grpc.HandlerCallDetails
) -> "Handler | None":
    if not interceptors:
        return registry.lookup(details)
    continuation = partial(_ask, interceptors[1:], registry)
    return await interceptors[0].intercept_service(continuation, details)
