"""The handlers of the core's services, under the full names of their methods: one registry, which every way in looks into.

Above it: `gateway.app` registers servicers with the generated `add_XServicer_to_server` functions, for which a registry is a
server. Below it: the network server takes its handlers from here, and so does the in-process channel. The registry serves nothing
itself.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
HandlerWrapper: TypeAlias = Callable[[str, Handler], Handler]
"""Makes of a method's full name, such as `/twinspan.v1.ChatService/Stream`, and its handler the handler to use instead."""


class HandlerRegistry:
    """Keeps handlers by method, each wrapped once, when it is registered."""

    def __init__(self, wrappers: Sequence[HandlerWrapper] = ()) -> None:
        """Makes an empty registry.

        Args:
            wrappers: Put around every handler, the first one outermost.
        """
        self._wrappers = tuple(reversed(wrappers))
        self._handlers: dict[str, Handler] = {}
        self._services: dict[str, dict[str, Handler]] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    @property
    def service_names(self) -> tuple[str, ...]:
        """The full names of the services, such as `twinspan.v1.ChatService`, sorted."""
        generic = (handler.service_name() for handler in self._generic if isinstance(handler, grpc.ServiceRpcHandler))
        return tuple(sorted({*self._services, *generic}))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Registers the methods of one service. Generated code calls this.

        Args:
            service_name: The full name of the service.
            method_handlers: The handlers by the bare names of their methods.

        Raises:
            TypeError: A handler is no `async def`; a generated servicer's method that nobody has overridden is such a one.
            ValueError: A method is registered already.
        """
        service = self._services.setdefault(service_name, {})
        for name, handler in method_handlers.items():
            method = f"/{service_name}/{name}"
            if method in self._handlers:
                raise ValueError(f"{method} is registered twice: one servicer a service.")
            self._handlers[method] = service[name] = self._wrapped(method, handler)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Registers handlers that say only when asked which methods they serve. Generated code calls this too.

        Methods that are also registered by name are served under it, with the cost of wrapping paid once. Of the others nobody
        knows the names ahead, so they are wrapped each time they are looked up.
        """
        self._generic.extend(generic_rpc_handlers)

    def lookup(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        """Returns the handler of a method, wrapped; None if there is none.

        Raises:
            TypeError: A generic handler gave a handler that is no `async def`.
        """
        handler = self._handlers.get(details.method)
        if handler is not None:
            return handler
        for generic in self._generic:
            found = generic.service(details)
            if found is not None:
                return self._wrapped(details.method, found)
        return None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Makes a server serve what is registered here. What is registered later it serves as well, if a little slower."""
        for service_name, handlers in self._services.items():
            server.add_registered_method_handlers(service_name, handlers)
        server.add_generic_rpc_handlers((_Lookup(self),))

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        for wrap in self._wrappers:
            handler = wrap(method, handler)
        behaviour = behaviour_of(handler)
        if not (inspect.iscoroutinefunction(behaviour) or (handler.response_streaming and inspect.isasyncgenfunction(behaviour))):
            raise TypeError(
                f"{method} is served by {behaviour!r}: define it with `async def`, for it must not block the event loop."
            )
        return handler


class _Lookup(grpc.GenericRpcHandler):
    """Shows a registry to a server, which asks it for every method that it has not been told of by name."""

    def __init__(self, registry: HandlerRegistry) -> None:
        self._registry = registry

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        return self._registry.lookup(handler_call_details)


def behaviour_of(handler: Handler) -> Callable[..., Any]:
    """Returns the one function of a handler's four places that its kind of RPC uses.

    Raises:
        TypeError: That place is empty.
    """
    if handler.request_streaming:
        behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
    if behaviour is None:
        raise TypeError(f"{handler!r} has no function for its own kind of RPC.")
    return behaviour
