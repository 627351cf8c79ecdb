"""The road of one forwarded request: who may, to whom it goes, and both its directions at once.

    order      what is asked may be asked, and of whom
    open       a connection to the provider, with the request's head on it
    upload     pieces of the body, as they come
    answer     informational heads, the head, pieces of the body, trailers, as they come

Nothing is read ahead beyond a bounded buffer either way. There is one attempt, for a body cannot be sent twice; a request without
one is sent again if a pooled connection turned out to be closed. Above is `gateway.services.proxy`; below is
`gateway.providers.raw_sender`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final, Protocol
from urllib.parse import quote, unquote_plus

from google.protobuf.message import Message
from twinspan.v1 import proxy_pb2
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.asking import Caller
from gateway.errors import GatewayError
from gateway.failures import outcome_of
from gateway.forwarding import order as rules
from gateway.forwarding.socket import SocketRelay, handshake
from gateway.governance import Governance
from gateway.limits.estimate import Size
from gateway.limits.scopes import scopes_of
from gateway.providers.openai import faults
from gateway.providers.provider import Provider
from gateway.providers.raw_exchange import Head, RawExchange
from gateway.providers.raw_sender import RawRequest, RawSender
from gateway.providers.send_error import SendError
from gateway.providers.timeouts import Timeouts
from gateway.routing.catalogue import Catalogue
from gateway.routing.target import Target
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Tracing

_CONTINUE_SECONDS: Final = 1.0
"""How long a provider may take to say that it wants a body; many never say it."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REALTIME_PATH: Final = "/realtime"
_REALTIME_ROUTE: Final = "GET /v1/realtime"
_CHAT_PATH: Final = "/chat/completions"


class ForwardCaller(Caller, Protocol):
    """Who asks, as far as forwarding must know."""

    def require_route(self, route: str) -> None:
        """Raises a `GatewayError` unless the caller may use this route, given as `METHOD /path`."""

    def announce(self) -> Awaitable[None]:
        """Sends what is known of the answer ahead of it."""

    def write(self, message: Message) -> Awaitable[None]:
        """Sends a message; waits while the caller reads too slowly."""


@dataclass(slots=True)
class _Order:
    """What a provider is asked.

    Attributes:
        asked: Who is asked; its model is empty if none was named.
        target: Path and query.
        head: What the caller sent.
    """

    asked: Target
    target: str
    head: proxy_pb2.ForwardRequestHead

    @property
    def provider(self) -> Provider:
        """Who is asked."""
        return self.asked.provider

    @property
    def model(self) -> str:
        """The model's name at the provider; empty if none was named."""
        return self.asked.model


class Forwarder:
    """Forwards requests."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        sender: RawSender,
        recorder: Recorder,
        tracing: Tracing,
        max_upload_bytes: Callable[[], int],
        governance: Governance,
    ) -> None:
        """Makes a forwarder.

        Args:
            catalogue: Returns the catalogue of the configuration that holds now.
            sender: Sends to providers.
            recorder: Counts.
            tracing: Makes spans.
            max_upload_bytes: Returns how long a body may be.
            governance: Decides whether a request may be made, and through which account.
        """
        self._catalogue = catalogue
        self._sender = sender
        self._recorder = recorder
        self._tracing = tracing
        self._max_upload_bytes = max_upload_bytes
        self._limiter = governance.limiter
        self._availability = governance.availability

    async def forward(self, requests: AsyncIterator[proxy_pb2.ForwardRequest], caller: ForwardCaller) -> None:
        """Forwards one request and writes its answer to the caller.

        Raises:
            GatewayError: It cannot be forwarded, or its answer broke off.
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "head":
            raise rules.refused("The first message must be a head, as ProxyService.Forward documents.", "head")
        order = self._order(first.head, caller)
        waiting: proxy_pb2.ForwardRequest | None = None
        length: int | None = first.head.content_length
        if first.head.websocket:
            length = 0
        elif not first.head.HasField("content_length"):
            waiting = await anext(requests, None)
            length = 0 if waiting is None else None
        if length is not None:
            self._check_size(length)
        # What a request forwarded as it is takes of tokens, nobody knows: it counts as a request.
        admission = await self._limiter.admit(
            scopes_of(caller.principal, None), _nothing_known, lambda: 0.0, order.provider.timeouts.total, caller.answer
        )
        attempt = self._recorder.attempt(*order.asked.key, caller.counts)
        origin = _origin(order.provider)
        span = self._tracing.attempt_span(
            caller.span,
            provider=order.provider.name,
            model=order.model,
            number=1,
            url=f"{str(origin).rstrip('/')}{order.target}",
            method=first.head.method,
        )
        caller.answer["x-twinspan-provider"] = order.provider.name
        if order.model:
            caller.answer["x-twinspan-model"] = order.model
        caller.answer["x-twinspan-attempts"] = "1"
        caller.answer["x-twinspan-cache-status"] = "BYPASS"
        count = partial(self._recorder.body_forwarded, provider=order.provider.name)
        passage = _Passage(caller, requests, waiting, length, self._max_upload_bytes(), count)
        fault: BaseException | None = None
        try:
            request = _request(order, origin, length, span.headers, caller.remaining_seconds())
            await passage.run(self._sender, request, order.head)
            fault = _fault_of(passage.head, order.provider.name)
        except BaseException as error:
            fault = error
            if isinstance(error, GatewayError):
                error.message = order.provider.cleansed(error.message)
            raise
        finally:
            self._limiter.settle(admission, None, 0.0)
            self._availability.ended(order.asked, fault, passage.head.fields if passage.head is not None else None)
            attempt.end(outcome_of(fault), trace_id=span.sampled_trace_id)
            span.end(fault, status=passage.head.status if passage.head is not None else 0)

    def _order(self, head: proxy_pb2.ForwardRequestHead, caller: ForwardCaller) -> _Order:
        head.method = rules.method(head.method)
        if head.websocket and head.method != "GET":
            raise rules.refused("A WebSocket is asked for by GET.", "method")
        target = rules.target(head.path, head.query)
        catalogue = self._catalogue()
        if head.WhichOneof("destination") == "provider":
            caller.require_route(f"{head.method} /proxy/{head.provider}{head.path}")
            caller.require(f"{head.provider}/*")  # which model a request asks for is not looked at
            provider = catalogue.providers.get(head.provider)
            if provider is None:
                raise GatewayError(
                    ErrorKind.ERROR_KIND_NOT_FOUND,
                    f"There is no provider '{head.provider[:256]}'. The path is /proxy/PROVIDER/PATH.",
                    param="provider",
                )
            return _Order(self._availability.seat(Target(provider, "")), target, head)
        if head.path != _REALTIME_PATH or not head.websocket:
            raise rules.refused("With a model for its destination, a WebSocket to /realtime is all that is forwarded.", "path")
        caller.require_route(_REALTIME_ROUTE)
        route = catalogue.route(head.model)
        caller.require(route.name)
        chosen = self._availability.seat(route.targets[0])
        base = chosen.provider.chat_url.raw_path.removesuffix(_CHAT_PATH)
        query = _with_model(head.query, chosen.model)
        return _Order(chosen, f"{base}{_REALTIME_PATH}?{query}", head)

    def _check_size(self, length: int) -> None:
        if length > self._max_upload_bytes():
            raise _too_large(self._max_upload_bytes())


def _nothing_known() -> Size:
    return Size(0)


class _Passage:
    """One request under way to a provider."""

    def __init__(
        self,
        caller: ForwardCaller,
        requests: AsyncIterator[proxy_pb2.ForwardRequest],
        waiting: proxy_pb2.ForwardRequest | None,
        length: int | None,
        most_bytes: int,
        count: Callable[[str, int], None],
    ) -> None:
        self.head: Head | None = None
        self._count = count
        self._caller = caller
        self._requests = requests
        self._waiting = waiting
        self._length = length
        self._most_bytes = most_bytes
        self._wanted = asyncio.Event()
        self._heads = asyncio.Lock()

    async def run(self, sender: RawSender, request: RawRequest, asked: proxy_pb2.ForwardRequestHead) -> None:
        """Sends the request and writes the answer."""
        exchange = await sender.open(request)
        try:
            if asked.websocket:
                await self._run_socket(exchange, request)
                return
            if self._length == 0 and request.method in _SAFE_METHODS:
                exchange, head = await self._first_head(sender, exchange, request)
            else:
                head = None
            expecting = asked.expect_continue and self._length != 0
            if not expecting:
                self._wanted.set()
            upload = asyncio.create_task(self._upload(exchange))
            upload.add_done_callback(lambda done: None if done.cancelled() or done.exception() is None else exchange.abort())
            try:
                await self._answer(exchange, head, expecting=expecting)
            except SendError:
                if upload.done() and not upload.cancelled() and (fault := upload.exception()) is not None:
                    raise fault from None
                raise
            finally:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
        finally:
            exchange.close()

    async def _first_head(self, sender: RawSender, exchange: RawExchange, request: RawRequest) -> tuple[RawExchange, Head]:
        try:
            return exchange, await exchange.next_head()
        except SendError:
            if not exchange.stale:
                raise
        exchange = await sender.open(request, fresh=True)
        try:
            return exchange, await exchange.next_head()
        except BaseException:
            exchange.close()
            raise

    async def _answer(self, exchange: RawExchange, head: Head | None, *, expecting: bool) -> None:
        caller = self._caller
        if head is None:
            head = await exchange.next_head()
        while head.informational:
            if head.status != 100:
                await self._write_head(head)
            elif expecting and not self._wanted.is_set():
                self._wanted.set()
                await self._write_head(head)
            head = await exchange.next_head()
        if head.status == 101:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR, "The provider changed the protocol, which nobody had asked for."
            )
        self.head = head
        await self._write_head(head)
        while piece := await exchange.next_piece():
            self._count("received", len(piece))
            await caller.write(proxy_pb2.ForwardResponse(body=piece))
        if trailers := rules.answered_trailers(exchange.trailers):
            await caller.write(proxy_pb2.ForwardResponse(trailers=proxy_pb2.ForwardTrailers(headers=_headers(trailers))))

    async def _write_head(self, head: Head) -> None:
        async with self._heads:
            await self._caller.announce()
            await self._caller.write(_response_head(head))

    async def _upload(self, exchange: RawExchange) -> None:
        await self._until_wanted()
        sent = 0
        async for message in self._messages():
            match message.WhichOneof("part"):
                case "body":
                    piece = message.body
                    sent += len(piece)
                    if sent > self._most_bytes:
                        raise _too_large(self._most_bytes)
                    if self._length is not None and sent > self._length:
                        raise _wrong_length(self._length)
                    self._count("sent", len(piece))
                    await exchange.write(piece)
                case "trailers":
                    trailers = [(header.name, header.value) for header in message.trailers.headers]
                    exchange.end(rules.sent_trailers(trailers))
                    return
                case _:
                    raise rules.refused("After its head, a request has pieces of its body and then trailers.", "part")
        if self._length is not None and sent != self._length:
            raise _wrong_length(self._length)
        exchange.end()

    async def _until_wanted(self) -> None:
        """Waits until the provider wants the body, or until it seems to be one that never says so."""
        if self._wanted.is_set():
            return
        try:
            async with asyncio.timeout(_CONTINUE_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            if self.head is None and not self._wanted.is_set():
                self._wanted.set()
                await self._write_head(Head(100, "Continue", (), {}))
            else:
                await self._wanted.wait()

    async def _messages(self) -> AsyncIterator[proxy_pb2.ForwardRequest]:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            yield waiting
        async for message in self._requests:
            yield message

    async def _run_socket(self, exchange: RawExchange, request: RawRequest) -> None:
        head = await exchange.next_head()
        while head.informational:
            head = await exchange.next_head()
        if head.status != 101:
            self.head = head
            await self._write_head(head)
            while piece := await exchange.next_piece():
                self._count("received", len(piece))
                await self._caller.write(proxy_pb2.ForwardResponse(body=piece))
            return
        relay = SocketRelay(exchange, head, request, self._count)
        self.head = head
        await self._write_head(head)
        await relay.run(self._messages(), self._caller.write)


def _origin(provider: Provider) -> URL:
    return provider.chat_url.with_path("/").with_query(None)


def _request(
    order: _Order, origin: URL, length: int | None, trace: Iterable[tuple[str, str]], remaining_seconds: float | None
) -> RawRequest:
    head = order.head
    given = [(header.name, header.value) for header in head.headers]
    headers = rules.sent_headers(given, [*order.provider.own_headers.items(), *trace], websocket=head.websocket)
    if head.websocket:
        headers += handshake()
    elif head.expect_continue and length != 0:
        headers.append(("Expect", b"100-continue"))
    limits = order.provider.timeouts
    total = inf if remaining_seconds is None else max(remaining_seconds, 0.001)
    return RawRequest(
        origin=origin,
        target=order.target,
        method=head.method,
        headers=headers,
        content_length=length,
        # Nobody knows whether the answer is a stream, so its first byte may take as long as a whole answer.
        timeouts=Timeouts(limits.connect, min(limits.total, total), limits.idle, total),
        provider=order.provider.name,
        model=order.model,
    )


def _response_head(head: Head) -> proxy_pb2.ForwardResponse:
    message = proxy_pb2.ForwardResponseHead(
        status=head.status,
        reason=head.reason.encode("latin-1", "replace").decode("ascii", "replace"),
        headers=_headers(rules.answered_headers(head.headers)),
    )
    length = head.fields.get("Content-Length", "")
    if length.isascii() and length.isdecimal() and len(length) < 19 and "Transfer-Encoding" not in head.fields:
        message.content_length = int(length)
    return proxy_pb2.ForwardResponse(head=message)


def _headers(given: rules.Headers) -> list[proxy_pb2.ForwardHeader]:
    return [proxy_pb2.ForwardHeader(name=name, value=value) for name, value in given]


def _with_model(query: str, model: str) -> str:
    kept = [part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) != "model"]
    return "&".join([f"model={quote(model, safe='')}", *kept])


def _fault_of(head: Head | None, provider: str) -> GatewayError | None:
    """Returns the error that an answer's status stands for, which the client gets as it is: for the attempt's span and counts."""
    if head is None or head.status < 400:
        return None
    return faults.of_status(head.status, head.fields, b"", provider)


def _too_large(most_bytes: int) -> GatewayError:
    return GatewayError(
        ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
        f"The body is larger than the {most_bytes} bytes that this gateway forwards (server.max_upload_bytes).",
    )


def _wrong_length(length: int) -> GatewayError:
    return rules.refused(f"The body is not the {length} bytes long that were announced.", "content_length")
