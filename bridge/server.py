"""The HTTP server: takes connections, finds the endpoint of each request, and answers every failure as JSON.

It stands on aiohttp's low-level server, since the routes come from the services' descriptors and not from an application's table.
Above are the routes; below is aiohttp. Each request runs in a task that is cancelled when its client hangs up.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from twinspan.v1.errors_pb2 import ErrorKind

from bridge import errors
from bridge.call import Call
from bridge.errors import BridgeError, Failure
from bridge.router import Endpoint, MethodNotAllowedError, Router
from bridge.telemetry.http import HttpTelemetry

_log = logging.getLogger(__name__)

_BACKLOG = 2048
"""How many connections the system keeps waiting."""

_TAIL_BYTES = 2048
"""How much is kept of each read, in case that it has the trailing headers of a body that is about to be forwarded."""

_LOOK_SECONDS = 0.05
"""How often a server that hands over looks whether connections are left."""

_ACCEPTORS = 16
"""How many connections are let in at a turn of the event loop."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the bridge listens.

    Attributes:
        host: The address to bind; None for all interfaces.
        port: The port to bind; 0 for a free one.
        max_body_bytes: Most bytes of a request's body that is read whole.
        drain_seconds: How long requests under way may take once the server is to stop.
        cors_origins: Origins whose pages may call; `*` for any.
        tls: TLS, if it is on.
        sockets: What to listen on in place of host and port: bound already, and shared with whoever goes on when this server stops.
    """

    host: str | None
    port: int
    max_body_bytes: int = 10 * 1024 * 1024
    drain_seconds: float = 30.0
    cors_origins: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    sockets: Sequence[socket.socket] = ()


class BridgeServer:
    """Serves a router over HTTP."""

    def __init__(self, router: Router, settings: ServerSettings, telemetry: HttpTelemetry) -> None:
        self._router = router
        self._settings = settings
        self._telemetry = telemetry
        self._runner: web.ServerRunner | None = None
        self._leaving = False
        self._loop = asyncio.get_running_loop()

    async def start(self) -> int:
        """Begins to listen, and returns the port.

        Raises:
            OSError: The address cannot be bound.
        """
        server = _Server(
            self._handle,
            request_factory=self._make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=75.0,
            max_field_size=16 * 1024,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=self._settings.drain_seconds)
        await self._runner.setup()
        settings = self._settings
        for bound in settings.sockets:
            await web.SockSite(self._runner, bound, ssl_context=settings.tls, backlog=_BACKLOG).start()
            await self._add_acceptors([bound])
        if not settings.sockets:
            site = web.TCPSite(self._runner, settings.host, settings.port, ssl_context=settings.tls, backlog=_BACKLOG)
            await site.start()
            await self._add_acceptors(cast(asyncio.Server, site._server).sockets)  # noqa: SLF001 - no public way to its sockets
        return int(self._runner.addresses[0][1])

    async def hand_over(self, seconds: float) -> None:
        """Stops listening, and lets clients go over to whoever listens in its place: every answer to come closes its connection.

        A connection that is closed while it is idle may be the one on which its client is just about to ask, and that request is
        lost. So idle ones are kept for a while: most are asked on once more, or closed by their clients.

        Args:
            seconds: How long to wait for connections to end, at most. Those that are left then are for `stop`.
        """
        if self._runner is None or self._runner.server is None:
            return
        self._leaving = True
        for site in list(self._runner.sites):
            await site.stop()
        deadline = self._loop.time() + seconds
        while self._runner.server.connections and self._loop.time() < deadline:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Stops listening, lets requests under way end for `drain_seconds`, then cancels them."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _add_acceptors(self, sockets: Iterable[socket.socket]) -> None:
        """Lets several connections in at every turn of the event loop.

        libuv, on which uvloop stands, accepts one connection a turn from each descriptor that it listens on. Under load a turn
        takes tens of milliseconds, and most of a crowd that arrives would wait for seconds. So it gets the socket several times.
        """
        assert self._runner is not None  # noqa: S101 (for the type checker: `start` has set it)
        for listening in sockets:
            for _ in range(_ACCEPTORS - 1):
                same = socket.socket(fileno=os.dup(listening.fileno()))
                await web.SockSite(self._runner, same, ssl_context=self._settings.tls, backlog=_BACKLOG).start()

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        if self._leaving:
            message = message._replace(should_close=True)
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            self._loop,
            client_max_size=self._settings.max_body_bytes,
        )

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        try:
            endpoint, variables = self._router.find(http.method, http.path)
        except BridgeError as error:
            endpoint, variables = _refusing(error), {}
        span = self._telemetry.begin(http.method, endpoint.template, http)
        call = Call(http, variables, span, self._loop)
        status = 499
        try:
            response = await self._answer(endpoint, call)
            status = response.status
            return response
        finally:
            call.close()
            span.end(status, call.failure.kind_name if call.failure else None)

    async def _answer(self, endpoint: Endpoint, call: Call) -> web.StreamResponse:
        if self._settings.cors_origins:
            self._allow_origin(call)
            if call.http.method == "OPTIONS" and "Access-Control-Request-Method" in call.http.headers:
                return _preflight(call)
        try:
            return await endpoint.handler(call)
        except ConnectionError:
            raise
        except Exception as error:
            failure = errors.of_exception(error)
            if failure is None:
                failure = errors.internal()
                _log.error("%s failed", endpoint.template, exc_info=error, extra=call.log_fields())
            if call.answering:
                call.failed(failure)
                raise ConnectionError("The answer has begun, so the connection is all that can end it.") from error
            if isinstance(error, MethodNotAllowedError):
                call.headers["Allow"] = error.allowed
            call.failed(failure)
            return call.json(failure.openai_body(), failure.status)

    def _allow_origin(self, call: Call) -> None:
        origin = call.http.headers.get("Origin")
        allowed = self._settings.cors_origins
        if origin is not None and ("*" in allowed or origin in allowed):
            call.headers["Access-Control-Allow-Origin"] = origin
            call.headers["Vary"] = "Origin"


def _preflight(call: Call) -> web.Response:
    asked = call.http.headers
    call.headers["Access-Control-Allow-Methods"] = asked["Access-Control-Request-Method"]
    call.headers["Access-Control-Allow-Headers"] = asked.get("Access-Control-Request-Headers", "*")
    call.headers["Access-Control-Max-Age"] = "600"
    return web.Response(status=204, headers=call.headers)


def _refusing(error: BridgeError) -> Endpoint:
    """Returns an endpoint that answers a request for which there is none. It has one name, whatever was asked for."""

    async def handler(_call: Call) -> web.StreamResponse:
        raise error

    return Endpoint("*", "(none)", handler)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """A connection whose malformed requests are answered as JSON, and are no error of this server's in the log.

    Attributes:
        tail: The last bytes that came in, where trailing headers are found.
        tail_bytes: How many bytes of `tail` are wanted; 0 for those of the last read alone.
    """

    tail = b""
    tail_bytes = 0

    def data_received(self, data: bytes) -> None:
        wanted = self.tail_bytes
        self.tail = (self.tail + data)[-wanted:] if wanted else data[-_TAIL_BYTES:]
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone: aiohttp ends the connection without a word
        if status >= 500:
            _log.error("The request could not be handled", exc_info=exc)
        else:
            _log.debug("Malformed HTTP from %s: %s", request.remote, message)
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; there is no place for an error.")
        if status >= 500:
            failure = errors.internal()
        else:
            failure = Failure(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                status,
                f"This is not HTTP that the gateway understands: {_first_line(message)}",
            )
        response = web.Response(status=failure.status, body=failure.openai_body(), content_type="application/json")
        response.force_close()
        return response


def _first_line(message: str | None) -> str:
    return (message or "").strip().partition("\n")[0].rstrip(":")
