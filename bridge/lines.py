"""Lines of batches: requests to the bridge's routes without HTTP.

A line goes through the very handler that answers the same request over REST, so both are read, checked, answered and refused alike,
and a route that is added serves batches too. Above it: the core's batch worker, which the command line hands this to. Below it: the
routes.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy
from twinspan.v1.errors_pb2 import ErrorKind

from bridge import errors
from bridge.call import Call
from bridge.errors import BridgeError, Failure
from bridge.router import Router
from bridge.telemetry.http import HttpSpan

_log = logging.getLogger(__name__)

_INFERENCE = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations", "/v1/responses", "/v1/messages"),
    *("/v1/images/generations", "/v1/rerank", "/v2/rerank"),
)
"""The routes that take a JSON object and give one, whether this bridge has them or not."""


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What came of a line.

    Attributes:
        status: The HTTP status.
        request_id: The request's id.
        body: The JSON.
        retry_after_seconds: When it may be tried again; None if that is of no use.
    """

    status: int
    request_id: str
    body: bytes
    retry_after_seconds: float | None = None


class Lines:
    """Answers lines.

    Attributes:
        urls: The routes that lines may name.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self.urls = tuple(url for url in _INFERENCE if _has(router, url))

    async def answer(self, url: str, body: bytes, metadata: Sequence[tuple[str, str]]) -> LineAnswer:
        """Answers a request to one of the `urls`; a request that fails is an answer too.

        Args:
            url: The route.
            body: The JSON.
            metadata: Says to the core who asks.
        """
        call = _LineCall(body, {}, metadata)
        try:
            endpoint, _ = self._router.find("POST", url)
            response = cast(web.Response, await endpoint.handler(call))
            return LineAnswer(response.status, call.request_id, cast(bytes, response.body))
        except Exception as error:  # noqa: BLE001 (as for a request over HTTP, whatever it is becomes an answer)
            failure = errors.of_exception(error)
            if failure is None:
                failure = errors.internal()
                _log.error("%s failed for a line", url, exc_info=error, extra={"request_id": call.request_id})
            return LineAnswer(failure.status, call.request_id, failure.openai_body(), _retry_after(failure))
        finally:
            call.close()


class _LineRequest:
    """What routes look at of an HTTP request."""

    method = "POST"
    client_max_size = 0

    def __init__(self, body: bytes) -> None:
        self.headers = CIMultiDictProxy(CIMultiDict({"Accept": "application/json", "Content-Type": "application/json"}))
        self.query: MultiDictProxy[str] = MultiDictProxy(MultiDict())
        self._body = body

    async def read(self) -> bytes:
        return self._body


class _NoSpan:
    """The span of no HTTP request. The core's own span of the call is the line's first."""

    log_fields: dict[str, str] = {}  # noqa: RUF012 (nobody writes to it)

    def begin_client(self, method: str, metadata: list[tuple[str, str]]) -> None:
        pass

    @contextmanager
    def client(self, _method: str, _metadata: list[tuple[str, str]]) -> Iterator[None]:
        yield


class _LineCall(Call):
    """A line under way, as routes see it."""

    __slots__ = ("_caller",)

    def __init__(self, body: bytes, variables: Mapping[str, str], caller: Sequence[tuple[str, str]]) -> None:
        request = cast(web.BaseRequest, _LineRequest(body))
        super().__init__(request, variables, cast(HttpSpan, _NoSpan()), asyncio.get_running_loop())
        self._caller = caller

    def metadata(self) -> list[tuple[str, str]]:
        """Returns the metadata of the RPC that this line becomes."""
        return [("x-request-id", self.request_id), *self._caller]


def _has(router: Router, url: str) -> bool:
    try:
        router.find("POST", url)
    except BridgeError:
        return False
    return True


def _retry_after(failure: Failure) -> float | None:
    """Returns when to come again, where whoever limits the rate says that it helps, or a core that has no room."""
    if failure.status not in {429, 503} or failure.headers().get("x-should-retry") == "false":
        return None
    if failure.kind == ErrorKind.ERROR_KIND_TARGETS_EXHAUSTED and failure.retry_after_seconds is None:
        return None
    return failure.retry_after_seconds or 1.0
