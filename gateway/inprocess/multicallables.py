"""What a generated stub calls for each of its methods, in one process.

Above it: generated stubs. Below it: `gateway.inprocess.channel`, which starts the RPC, and `gateway.inprocess.calls`, which the
client is given. Of the options of a call, `wait_for_ready` and `compression` are accepted and mean nothing here.
"""

from collections.abc import Callable
from typing import Any

import grpc

from gateway.inprocess.calls import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from gateway.inprocess.messages import adoptions, snapshots
from gateway.inprocess.rpc import Rpc

Begin = Callable[..., Rpc]
"""`InProcessChannel.begin`."""


class _MultiCallable:
    __slots__ = ("_adopt", "_begin", "_method", "_snapshot")

    def __init__(self, begin: Begin, method: str, serializer: Any, deserializer: Any) -> None:
        self._begin = begin
        self._method = method
        self._snapshot = snapshots(serializer)
        self._adopt = adoptions(deserializer)


class UnaryUnary(_MultiCallable, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """Calls a method with one request and one response."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: ARG002 (always ready)
        compression: grpc.Compression | None = None,  # noqa: ARG002 (nothing to compress)
    ) -> UnaryUnaryCall:
        """Starts a call. Raises what `InProcessChannel.begin` raises."""
        rpc = self._begin(self._method, (False, False), self._snapshot(request), timeout, metadata, credentials)
        return UnaryUnaryCall(rpc, self._snapshot, self._adopt)


class UnaryStream(_MultiCallable, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """Calls a method with one request and a stream of responses."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: ARG002 (always ready)
        compression: grpc.Compression | None = None,  # noqa: ARG002 (nothing to compress)
    ) -> UnaryStreamCall:
        """Starts a call. Raises what `InProcessChannel.begin` raises."""
        rpc = self._begin(self._method, (False, True), self._snapshot(request), timeout, metadata, credentials)
        return UnaryStreamCall(rpc, self._snapshot, self._adopt)


class StreamUnary(_MultiCallable, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Calls a method with a stream of requests and one response."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: ARG002 (always ready)
        compression: grpc.Compression | None = None,  # noqa: ARG002 (nothing to compress)
    ) -> StreamUnaryCall:
        """Starts a call. Raises what `InProcessChannel.begin` raises."""
        rpc = self._begin(self._method, (True, False), None, timeout, metadata, credentials)
        return StreamUnaryCall(rpc, self._snapshot, self._adopt, request_iterator=request_iterator)


class StreamStream(_MultiCallable, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Calls a method with a stream of requests and a stream of responses."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: ARG002 (always ready)
        compression: grpc.Compression | None = None,  # noqa: ARG002 (nothing to compress)
    ) -> StreamStreamCall:
        """Starts a call. Raises what `InProcessChannel.begin` raises."""
        rpc = self._begin(self._method, (True, True), None, timeout, metadata, credentials)
        return StreamStreamCall(rpc, self._snapshot, self._adopt, request_iterator=request_iterator)
