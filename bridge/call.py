"""One HTTP request under way: what came, the RPC it becomes, and what its answer must carry.

Handlers get a `Call` instead of aiohttp's request, and with it the few things that every route needs. `bridge.server` makes it and
ends it.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import grpc
from aiohttp import ClientPayloadError, web
from google.protobuf.message import Message
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.errors import BridgeError, Failure
from bridge.rpc import Rpc
from bridge.telemetry.http import HttpSpan

_STATUS_LOOKS, _STATUS_LOOK_SECONDS = 50, 0.01
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,4096}")
_OVERRIDES = ("x-twinspan-agent", "x-twinspan-provider", "x-twinspan-timeout-ms")
"""Headers that say what a caller wants in place of what would hold; the core knows them as metadata of the same names."""

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_ANSWER_METADATA = {
    "x-twinspan-provider": "X-Twinspan-Provider",
    "x-twinspan-model": "X-Twinspan-Model",
    "x-twinspan-attempts": "X-Twinspan-Attempts",
    "x-twinspan-cache-status": "X-Twinspan-Cache-Status",
    "x-twinspan-cost-usd": "X-Twinspan-Cost-Usd",
    **{
        f"x-ratelimit-{what}-{of}": f"X-RateLimit-{what.title()}-{of.title()}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    },
}
"""The metadata of an answer that its headers repeat."""


class Call:
    """One HTTP request, from its headers to its answer.

    Attributes:
        http: The request as aiohttp has it.
        loop: The event loop; asking asyncio for it costs a system call.
        variables: The values of the path's variables.
        request_id: The client's `x-request-id` if it is sane, else a new one.
        headers: What the answer carries.
        failure: Why the request failed, once that is known.
        token: A credential that is given in another place than a header; it is used if no header has one.
        answering: Whether the answer has begun, so that its status can change no more.
    """

    __slots__ = ("_span", "_under_way", "answering", "failure", "headers", "http", "loop", "request_id", "token", "variables")

    def __init__(
        self, http: web.BaseRequest, variables: Mapping[str, str], span: HttpSpan, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.http = http
        self.loop = loop
        self.variables = variables
        given = http.headers.get("X-Request-Id")
        self.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"req_{random.getrandbits(96):024x}"
        self.failure: Failure | None = None
        self.token: str | None = None
        self._span = span
        self.answering = False
        self._under_way: Any = None
        self.headers: dict[str, str] = {"X-Request-Id": self.request_id}

    async def body(self) -> bytes:
        """Returns the whole body.

        Raises:
            BridgeError: It is larger than `server.max_body_bytes`, or the client did not send all of it.
        """
        try:
            return await self.http.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BridgeError(
                ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
                f"The body is larger than the {self.http.client_max_size} bytes that this gateway takes (server.max_body_bytes).",
            ) from error
        except (ClientPayloadError, web.RequestPayloadError) as error:
            raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "The body ended before it was whole.") from error

    def metadata(self) -> list[tuple[str, str]]:
        """Returns the metadata of the RPC that this request becomes.

        Raises:
            BridgeError: The credential has characters that no credential has.
        """
        metadata = [("x-request-id", self.request_id)]
        credential = self._credential()
        if credential is not None:
            metadata.append(("authorization", credential))
        headers = self.http.headers
        for name in _OVERRIDES:
            wanted = headers.get(name)
            if wanted is not None:
                metadata.append((name, quote(wanted.strip(), safe=_PRINTABLE)))
        return metadata

    async def unary(self, rpc: Rpc, request: Message) -> Any:
        """Calls a unary RPC and returns its response.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        metadata = self.metadata()
        with self._span.client(rpc.name, metadata):
            under_way = self._under_way = rpc.invoke(request, metadata=metadata)
            response = await under_way
        self._note(await under_way.trailing_metadata())
        return response

    def stream(self, rpc: Rpc, request: Message) -> grpc.aio.UnaryStreamCall[Any, Any]:
        """Calls a streaming RPC, which is cancelled with the request."""
        metadata = self.metadata()
        self._span.begin_client(rpc.name, metadata)
        under_way: grpc.aio.UnaryStreamCall[Any, Any] = rpc.invoke(request, metadata=metadata)
        self._under_way = under_way
        return under_way

    def converse(self, rpc: Rpc) -> grpc.aio.StreamStreamCall[Any, Any]:
        """Calls an RPC with streams both ways, which is cancelled with the request."""
        metadata = self.metadata()
        self._span.begin_client(rpc.name, metadata)
        under_way: grpc.aio.StreamStreamCall[Any, Any] = rpc.invoke(metadata=metadata)
        self._under_way = under_way
        return under_way

    def upload(self, rpc: Rpc) -> "Upload":
        """Calls an RPC that takes a stream and answers once; it is cancelled with the request unless it has been ended."""
        metadata = self.metadata()
        self._span.begin_client(rpc.name, metadata)
        under_way: grpc.aio.StreamUnaryCall[Any, Any] = rpc.invoke(metadata=metadata)
        self._under_way = under_way
        return Upload(under_way)

    def exchange(self, rpc: Rpc) -> "Exchange":
        """Calls an RPC that takes a stream and gives one; it is cancelled with the request."""
        metadata = self.metadata()
        self._span.begin_client(rpc.name, metadata)
        under_way: grpc.aio.StreamStreamCall[Any, Any] = rpc.invoke(metadata=metadata)
        self._under_way = under_way
        return Exchange(under_way)

    async def invite_body(self) -> None:
        """Tells a client that waits for it that its body is wanted, as curl does with a large one."""
        if self.http.headers.get("Expect", "").lower() == "100-continue":
            await self.http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.http.writer.output_size = 0  # what says whether the answer has begun

    async def note_metadata(self, under_way: grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.StreamStreamCall[Any, Any]) -> None:
        """Takes over what the core says of the answer ahead of its first message."""
        self._note(await under_way.initial_metadata())

    def answer_headers(self, content_type: str) -> dict[str, str]:
        """Returns the headers of an answer of this type."""
        self.headers["Content-Type"] = content_type
        return self.headers

    def json(self, body: bytes, status: int = 200) -> web.Response:
        """Returns a JSON answer."""
        return web.Response(body=body, status=status, headers=self.answer_headers("application/json"))

    def failed(self, failure: Failure) -> None:
        """Notes why the request failed, for its answer's headers, its span and its metrics."""
        self.failure = failure
        self.headers.update(failure.headers())
        self._note(failure.metadata.items())

    def log_fields(self) -> dict[str, str]:
        """Returns what ties a log line to this request."""
        return {"request_id": self.request_id, **self._span.log_fields}

    def close(self) -> None:
        """Cancels the RPC if it is still under way, so that a client that hangs up frees everything behind it."""
        if self._under_way is not None and not self._under_way.done():
            self._under_way.cancel()

    def _note(self, metadata: Any) -> None:
        for key, value in metadata:
            header = _ANSWER_METADATA.get(key)
            if header is not None:
                self.headers[header] = value

    def _credential(self) -> str | None:
        headers = self.http.headers
        given = headers.get("Authorization") if self.token is None else f"Bearer {self.token}"
        if given is None:
            token = headers.get("x-api-key") or headers.get("api-key")
            if token is None:
                return None
            given = f"Bearer {token}"
        scheme, _, token = given.partition(" ")
        if not _CREDENTIAL.fullmatch(token.strip()) or not scheme.isascii():
            raise BridgeError(
                ErrorKind.ERROR_KIND_AUTH_FAILED,
                "The credential is malformed. Send 'Authorization: Bearer <token>' with the token as it was given to you.",
            )
        return f"{scheme} {token.strip()}"


class Exchange:
    """A stream of messages to the core, which answers with another once it has the first, or refuses it before."""

    def __init__(self, under_way: "grpc.aio.StreamStreamCall[Any, Any]") -> None:
        self._under_way = under_way

    async def write(self, message: Message) -> None:
        """Sends a message; waits while the core reads too slowly. What the core no longer wants is dropped: its answer says why."""
        with contextlib.suppress(asyncio.InvalidStateError):
            await self._under_way.write(message)

    async def end(self) -> "grpc.aio.StreamStreamCall[Any, Any]":
        """Says that this was all, and returns the call, from which the answer is to be read."""
        with contextlib.suppress(asyncio.InvalidStateError):
            await self._under_way.done_writing()
        return self._under_way


class Upload:
    """A stream of messages to the core, of which it answers the whole."""

    def __init__(self, under_way: "grpc.aio.StreamUnaryCall[Any, Any]") -> None:
        self._under_way = under_way

    async def begun(self) -> None:
        """Waits until the core has let the call in. Before that nothing should be written: over a network, a refusal can get lost.

        Raises:
            grpc.aio.AioRpcError: The core has refused the call.
        """
        if "x-request-id" not in dict(await self._under_way.initial_metadata()):  # a call that is let in begins its answer with it
            await self._under_way

    async def write(self, message: Message) -> None:
        """Sends a message; waits while the core reads too slowly.

        Raises:
            grpc.aio.AioRpcError: The core has ended the call, before it had all of it.
        """
        try:
            await self._under_way.write(message)
        except asyncio.InvalidStateError:
            await self._under_way  # which raises the reason
            raise
        except grpc.aio.AioRpcError as error:
            await self._true_status(error)
            await self._under_way
            raise

    async def _true_status(self, error: grpc.aio.AioRpcError) -> None:
        """Waits for the status that the core gave.

        grpc.aio gives a write that failed because the call had ended a status of its own, and the true one a moment later.
        """
        for _ in range(_STATUS_LOOKS):
            if error.trailing_metadata() or await self._under_way.details() != error.details():
                return
            await asyncio.sleep(_STATUS_LOOK_SECONDS)

    async def end(self) -> Any:
        """Says that this was all, and returns the core's answer.

        Raises:
            grpc.aio.AioRpcError: The call failed.
        """
        with contextlib.suppress(asyncio.InvalidStateError):  # it has ended already; the answer says how
            await self._under_way.done_writing()
        return await self._under_way
