"""What happens to every RPC before and after its servicer: span and counts, then who calls and whether they may, then errors.

These are the core's interceptors. They are put around each handler once, when it is registered, and not composed anew for each
call; and since the server and the in-process channel look into one registry, both run them.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias

import grpc
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.delegation import Delegation
from gateway.access.keys import KeyRing, Principal
from gateway.access.policy import DeniedError, Policy
from gateway.errors import GatewayError
from gateway.rpc.call import RpcCall
from gateway.rpc.registry import Handler, behaviour_of
from gateway.rpc.remainder import pass_over
from gateway.rpc.status import STATUS_DETAILS, to_wire
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Tracing

_log = logging.getLogger(__name__)

_OWN_PACKAGE = "/twinspan."
_INTERNAL_MESSAGE = "The gateway failed. The details are in its log, under this call's x-request-id."

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Edge:
    """Wraps handlers so that what every RPC needs is done in one place."""

    def __init__(
        self,
        policy: Policy,
        keys: Callable[[], KeyRing],
        recorder: Recorder,
        tracing: Tracing,
        delegation: Delegation | None = None,
    ) -> None:
        """Makes an edge.

        Args:
            policy: Decides who may call what.
            keys: Returns the credentials that are valid now.
            recorder: Counts.
            tracing: Makes spans.
            delegation: Recognises calls that this process makes for a key; None if it makes none.
        """
        self._delegation = delegation
        self._policy = policy
        self._keys = keys
        self._recorder = recorder
        self._tracing = tracing

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Returns a handler that does what every RPC needs and then calls `handler`.

        The handlers of this package's own services get an `RpcCall` for their context. Services of other packages (health,
        reflection, channelz) keep grpc's, and are only asked whether the caller may.
        """
        if not method.startswith(_OWN_PACKAGE):
            return self._guarded(method, handler)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, handler.stream_unary, streamed=True), handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_stream_rpc_method_handler(
            self._streaming(method, behaviour_of(handler), streamed=True), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, method: str, servicer: Callable[..., Any], *, streamed: bool = False) -> Callable[..., Any]:
        async def behaviour(request: Any, context: Context) -> Any:
            call = self._begin(method, context)
            try:
                self._admit(call)
                response = await servicer(request, call)
            except BaseException as error:  # noqa: BLE001 (every way out must settle the call; none is swallowed)
                fault: BaseException = error
            else:
                context.set_trailing_metadata(call.answer_metadata())
                call.counts.end("OK", trace_id=call.span.sampled_trace_id)
                call.span.end("OK")
                return response
            if streamed and not call.trusted and isinstance(fault, GatewayError):
                await pass_over(request)
            return await self._fail(call, context, fault)

        return behaviour

    def _streaming(self, method: str, servicer: Callable[..., Any], *, streamed: bool = False) -> Callable[..., Any]:
        async def behaviour(request: Any, context: Context) -> None:
            call = self._begin(method, context)
            try:
                self._admit(call)
                await servicer(request, call)
            except BaseException as error:  # noqa: BLE001 (every way out must settle the call; none is swallowed)
                fault: BaseException = error
            else:
                context.set_trailing_metadata(call.answer_metadata())
                call.counts.end("OK", trace_id=call.span.sampled_trace_id)
                call.span.end("OK")
                return
            if streamed and not call.trusted and isinstance(fault, GatewayError):
                await pass_over(request)
            await self._fail(call, context, fault)

        return behaviour

    def _begin(self, method: str, context: Context) -> RpcCall:
        metadata = context.invocation_metadata() or ()
        span = self._tracing.server_span(method, metadata)
        return RpcCall(method, context, dict(metadata), self._policy, self._recorder.call(method), span)

    def _admit(self, call: RpcCall) -> None:
        """Finds out who calls, and whether they may."""
        delegated = self._delegation.key_of(call.metadata) if self._delegation is not None and call.trusted else None
        if delegated is None:
            call.principal = self._identify(call.metadata.get("authorization"))
        else:
            call.principal = self._keys().named(delegated)
        self._policy.check(call.principal, call.method, now=datetime.now(UTC))

    def _identify(self, credential: str | bytes | None) -> Principal | None:
        if not isinstance(credential, str):
            return None
        scheme, _, token = credential.partition(" ")
        principal = self._keys().identify(token.strip()) if scheme.lower() == "bearer" else None
        if principal is None:
            self._recorder.auth_failed("unknown")
        else:
            self._recorder.authenticated()
        return principal

    async def _fail(self, call: RpcCall, context: Context, fault: BaseException) -> NoReturn:
        """Settles a call that failed and ends it with the status that its fault stands for."""
        if isinstance(fault, asyncio.CancelledError):
            call.counts.end("CANCELLED", error="cancelled", trace_id=call.span.sampled_trace_id)
            call.span.end("CANCELLED", fault)
            context.set_trailing_metadata(call.answer_metadata())
            raise fault
        error = self._as_gateway_error(call, fault)
        status = to_wire(error, call.request_id)
        call.counts.end(status.code.name, error=error.kind_name, provider=error.provider or "", trace_id=call.span.sampled_trace_id)
        call.span.end(status.code.name, error)
        if not isinstance(fault, Exception):
            raise fault
        trailing: tuple[tuple[str, str | bytes], ...] = (*call.answer_metadata(), (STATUS_DETAILS, status.details))
        await context.abort(status.code, status.message, trailing_metadata=trailing)
        raise AssertionError  # abort always raises

    def _as_gateway_error(self, call: RpcCall, fault: BaseException) -> GatewayError:
        if isinstance(fault, GatewayError):
            self._count_refusal(call, fault)
            return fault
        self._recorder.panicked()
        _log.error("%s failed", call.method, exc_info=fault, extra={"request_id": call.request_id, **call.span.log_fields})
        return GatewayError(ErrorKind.ERROR_KIND_INTERNAL_ERROR, _INTERNAL_MESSAGE)

    def _count_refusal(self, call: RpcCall, error: GatewayError) -> None:
        if error.upstream is not None:
            return
        if error.kind == ErrorKind.ERROR_KIND_AUTH_FAILED and "authorization" not in call.metadata:
            self._recorder.auth_failed("missing")
        elif isinstance(error, DeniedError):
            self._recorder.auth_denied(error.reason)

    def _guarded(self, method: str, handler: Handler) -> Handler:
        if self._policy.is_public(method):
            return handler
        servicer: Callable[..., Any] | None = handler.unary_unary
        if servicer is None:
            raise ValueError(f"{method} is neither public nor unary, which the edge does not know to guard.")

        async def behaviour(request: Any, context: Context) -> Any:
            metadata = dict(context.invocation_metadata() or ())
            try:
                self._policy.check(self._identify(metadata.get("authorization")), method, now=datetime.now(UTC))
            except GatewayError as error:
                status = to_wire(error, "")
                await context.abort(status.code, status.message, trailing_metadata=((STATUS_DETAILS, status.details),))
            answer = servicer(request, context)
            return await answer if asyncio.iscoroutine(answer) else answer

        return grpc.unary_unary_rpc_method_handler(behaviour, handler.request_deserializer, handler.response_serializer)
