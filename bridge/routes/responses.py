"""The routes of responses that were made before: got again whole or as events, listed, stopped and deleted."""

from typing import Any

import grpc
import orjson
from aiohttp import web
from twinspan.v1 import responses_pb2
from twinspan.v1.errors_pb2 import ErrorKind
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge.call import Call
from bridge.errors import BridgeError
from bridge.routes.json_streams import deliver
from bridge.rpc import Rpc


class ResponsesRoutes:
    """What is asked of a response by its id.

    Attributes:
        methods: The RPCs, by name.
    """

    def __init__(self, channel: grpc.aio.Channel, keepalive_seconds: float) -> None:
        """Makes the routes over a channel to the core.

        Args:
            channel: Leads to the core.
            keepalive_seconds: After how much silence a stream gets a comment.
        """
        stub = ResponsesServiceStub(channel)
        self.methods = responses_pb2.DESCRIPTOR.services_by_name["ResponsesService"].methods_by_name
        self._get, self._stream, self._items, self._cancel, self._delete = (
            Rpc.of(stub, self.methods[name]) for name in ("Get", "GetStream", "ListInputItems", "Cancel", "Delete")
        )
        self._keepalive_seconds = keepalive_seconds

    async def get(self, call: Call) -> web.StreamResponse:
        """Gives a response whole, or its events if the query says `stream=true`."""
        include = _include(call)
        if _flag(call, "stream"):
            request = responses_pb2.ResponsesServiceGetStreamRequest(id=call.variables["id"], include=include)
            if (after := _number(call, "starting_after")) is not None:
                request.starting_after = after
            if (padded := _flag(call, "include_obfuscation")) is not None:
                request.include_obfuscation = padded
            return await deliver(call, call.stream(self._stream, request), self._keepalive_seconds)
        whole = responses_pb2.ResponsesServiceGetRequest(id=call.variables["id"], include=include, accept_openai_json=True)
        return call.json((await call.unary(self._get, whole)).response.openai_json)

    async def input_items(self, call: Call) -> web.StreamResponse:
        """Lists what a response was made from."""
        query = call.http.query
        request = responses_pb2.ResponsesServiceListInputItemsRequest(
            id=call.variables["id"], after=query.get("after", ""), order=query.get("order", ""), include=_include(call)
        )
        if (limit := _number(call, "limit")) is not None:
            request.limit = limit
        return call.json((await call.unary(self._items, request)).page.encode())

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Stops a response that is made in the background."""
        request = responses_pb2.ResponsesServiceCancelRequest(id=call.variables["id"], accept_openai_json=True)
        return call.json((await call.unary(self._cancel, request)).response.openai_json)

    async def delete(self, call: Call) -> web.StreamResponse:
        """Deletes a response."""
        answer: Any = await call.unary(self._delete, responses_pb2.ResponsesServiceDeleteRequest(id=call.variables["id"]))
        return call.json(orjson.dumps({"id": answer.id, "object": "response", "deleted": True}))


def _include(call: Call) -> list[str]:
    """Returns what the query asks to add, by either of the names that clients have for it."""
    query = call.http.query
    return [*query.getall("include[]", []), *query.getall("include", [])]


def _flag(call: Call, name: str) -> bool | None:
    text = call.http.query.get(name)
    if text is not None and text not in {"true", "false"}:
        raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{name}' cannot be {text[:64]!r}.", param=name)
    return None if text is None else text == "true"


def _number(call: Call, name: str) -> int | None:
    text = call.http.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 9):
        raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{name}' cannot be {text[:64]!r}.", param=name)
    return int(text)
