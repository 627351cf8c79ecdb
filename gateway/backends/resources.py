"""Asks a provider for what it keeps: one request and its answer, each of any size, with its span and its counts.

Above are the files and batches of a provider; below is `gateway.providers.raw_sender`. Such a request is made once. One that
changes nothing is made again if a pooled connection turns out to be closed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import Final, Protocol

from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.errors import GatewayError
from gateway.failures import outcome_of
from gateway.providers.openai import faults
from gateway.providers.provider import Provider
from gateway.providers.raw_exchange import Head, RawExchange
from gateway.providers.raw_sender import RawRequest, RawSender
from gateway.providers.send_error import SendError
from gateway.providers.timeouts import Timeouts
from gateway.telemetry.recorder import Call as CallCounts
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Span, Tracing

_BODY_LIMIT: Final = 64 * 1024 * 1024
_ERROR_BODY_LIMIT: Final = 64 * 1024
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class ResourceCaller(Protocol):
    """On whose behalf a provider is asked.

    Attributes:
        counts: The caller's entry in the metrics.
        answer: What the caller learns of the answer ahead of it, by metadata key.
    """

    counts: CallCounts
    answer: dict[str, str]

    @property
    def span(self) -> Span:
        """The span under which the request's own stands."""

    def remaining_seconds(self) -> float | None:
        """Returns how long the caller will wait; None if it set no deadline."""


class Body:
    """What is sent: pieces whose sum is known ahead."""

    def __init__(self, content_type: str, length: int, pieces: AsyncIterator[bytes]) -> None:
        """Makes a body of this type, this many bytes long."""
        self.content_type = content_type
        self.length = length
        self.pieces = pieces

    @classmethod
    def of(cls, content_type: str, data: bytes) -> "Body":
        """Makes a body of what is in memory."""

        async def whole() -> AsyncIterator[bytes]:
            yield data

        return cls(content_type, len(data), whole())


class Resources:
    """Asks one provider, on behalf of one caller."""

    def __init__(self, provider: Provider, sender: RawSender, recorder: Recorder, tracing: Tracing, caller: ResourceCaller) -> None:
        """Makes what asks.

        Args:
            provider: Who is asked.
            sender: Sends.
            recorder: Counts.
            tracing: Makes spans.
            caller: On whose behalf.
        """
        self.provider = provider
        self._sender = sender
        self._recorder = recorder
        self._tracing = tracing
        self._caller = caller

    async def ask(self, method: str, path: str, body: Body | None = None) -> bytes:
        """Returns a whole answer. The arguments are those of `open`, and so is what it raises."""
        async with self.open(method, path, body) as exchange:
            return await exchange.read(_BODY_LIMIT)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Body | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[RawExchange]:
        """Sends a request, and gives its answer, whose status is a good one.

        Args:
            method: The HTTP method.
            path: Where, below the provider's base URL. Whatever is a caller's in it must have been quoted.
            body: What is sent; None for nothing.
            headers: What is sent beside what every request to the provider carries.

        Raises:
            GatewayError: There is no answer, it is an error, or it broke off.
        """
        provider = self.provider
        attempt = self._recorder.attempt("", provider.name, "", self._caller.counts)
        span = self._tracing.attempt_span(
            self._caller.span, provider=provider.name, model="", number=1, url=provider.url(path), method=method
        )
        self._caller.answer["x-twinspan-provider"] = provider.name
        self._caller.answer["x-twinspan-attempts"] = "1"
        status = 0
        fault: BaseException | None = None
        try:
            exchange, head = await self._send(self._request(method, path, body, headers or {}, span.headers), body)
            try:
                status = head.status
                await self._check(exchange, head)
                attempt.chunk(span.sampled_trace_id)
                yield exchange
            finally:
                exchange.close()
        except BaseException as error:
            fault = error
            if isinstance(error, GatewayError):
                error.message = provider.cleansed(error.message)
            raise
        finally:
            attempt.end(outcome_of(fault), trace_id=span.sampled_trace_id)
            span.end(fault, status=status)

    def _request(
        self,
        method: str,
        path: str,
        body: Body | None,
        headers: Mapping[str, str],
        trace: tuple[tuple[str, str], ...],
    ) -> RawRequest:
        provider, limits = self.provider, self.provider.timeouts
        remaining = self._caller.remaining_seconds()
        total = inf if remaining is None else max(remaining, 0.001)
        sent = {
            **{name: value for name, value in provider.headers.items() if name.lower() != "content-type"},
            **({"Content-Type": body.content_type} if body is not None else {}),
            "Accept-Encoding": "identity",
            **headers,
            **dict(trace),
        }
        return RawRequest(
            origin=provider.chat_url.with_path("/").with_query(None),
            target=URL(provider.url(path), encoded=True).raw_path_qs,
            method=method,
            headers=[(name, value.encode()) for name, value in sent.items()],
            content_length=body.length if body is not None else 0,
            timeouts=Timeouts(limits.connect, min(limits.total, total), limits.idle, total),
            provider=provider.name,
            model="",
        )

    async def _send(self, request: RawRequest, body: Body | None) -> tuple[RawExchange, Head]:
        """Sends the request and returns its answer, with the head read."""
        if body is not None:
            # What creates something is never sent twice, so it does not take a connection that may be closed.
            exchange = await self._sender.open(request, fresh=True)
            return exchange, await _uploaded(exchange, body)
        exchange = await self._sender.open(request)
        try:
            return exchange, await _final_head(exchange)
        except SendError:
            exchange.close()
            if not exchange.stale or request.method not in _SAFE_METHODS:
                raise
        except BaseException:
            exchange.close()
            raise
        exchange = await self._sender.open(request, fresh=True)
        try:
            return exchange, await _final_head(exchange)
        except BaseException:
            exchange.close()
            raise

    async def _check(self, exchange: RawExchange, head: Head) -> None:
        name = self.provider.name
        if head.status >= 400:
            body = await exchange.read(_ERROR_BODY_LIMIT, cut=True)
            raise faults.of_status(head.status, head.fields, body, name)
        if head.status not in {200, 201, 206}:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider '{name}' answered with HTTP status {head.status}, which is not followed. Check its url.",
                provider=name,
            )


async def _final_head(exchange: RawExchange) -> Head:
    head = await exchange.next_head()
    while head.informational:
        head = await exchange.next_head()
    return head


async def _uploaded(exchange: RawExchange, body: Body) -> Head:
    """Sends a body and returns the head of the answer, which may come before all of it was taken."""

    async def send() -> None:
        async for piece in body.pieces:
            await exchange.write(piece)
        exchange.end()

    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            head = await _final_head(exchange)
            sending.cancel()
    except BaseExceptionGroup as failures:
        exchange.close()
        raise failures.exceptions[0] from None
    except BaseException:
        exchange.close()
        raise
    return head
