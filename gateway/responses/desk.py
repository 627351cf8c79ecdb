"""The desk of responses that were made before: where callers get them again, go on from them, stop them and delete them.

A provider's is asked of that provider, the gateway's own is given as it was kept. Above is ResponsesService; below are what is
kept, and the requests to providers.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import msgspec
import orjson
from msgspec import Raw
from twinspan.v1 import events_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.backends.resources import Body, ResourceCaller, Resources
from gateway.errors import GatewayError
from gateway.providers.sse import SSEDecoder
from gateway.responses.kept import OWN, Kept, KeptResponses
from gateway.responses.operation import Past

_ID_SHOWN: Final = 64
_LONGEST_CONVERSATION: Final = 1000
"""How many responses one may go on from, one after the other."""

_MOST_HISTORY_BYTES: Final = 64 * 1024 * 1024
_DONE: Final = b"[DONE]"
ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"})
"""The types of the events with which a response ends."""


class DeskCaller(ResourceCaller, Protocol):
    """Who asks."""


class _Event(msgspec.Struct):
    type: str | None = None


class _Output(msgspec.Struct):
    output: list[Raw] = []


class _Id(msgspec.Struct):
    id: str | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_OUTPUT: Final = msgspec.json.Decoder(_Output)
_ITEM: Final = msgspec.json.Decoder(_Id)


class ResponseDesk:
    """Knows the responses that were made before. `sees_only` is whose the caller sees; None for everyone's."""

    def __init__(self, kept: KeptResponses, resources: Callable[[str, DeskCaller, str], Resources]) -> None:
        """Makes the desk.

        Args:
            kept: What is kept of responses.
            resources: Returns what asks a provider of this name on behalf of a caller, through the account of this id unless it is
                empty; raises a `GatewayError` if the provider is not there.
        """
        self._kept = kept
        self._resources = resources

    async def past(self, previous: str, sees_only: str | None) -> tuple[Past, str, str]:
        """Returns what a request goes on from that names a response as the previous one, and who alone can go on.

        That is a provider's name, and the id of an account of it; either is empty for any.

        Raises:
            GatewayError: There is no such response, or it is somebody else's.
        """
        provider, kept = await self._past_one(previous, sees_only)
        if provider != OWN:
            return Past(previous), provider, kept.account
        history: list[list[bytes]] = []
        size, id_ = 0, previous
        while True:
            items = [*map(bytes, kept.items), *map(bytes, _OUTPUT.decode(kept.response).output)]
            history.append(items)
            size += sum(map(len, items))
            if kept.previous is None:
                break
            if len(history) >= _LONGEST_CONVERSATION or size > _MOST_HISTORY_BYTES:
                raise _invalid(f"The conversation that ends with '{id_}' is too long to go on from. Send it as input.")
            id_ = kept.previous
            _, kept = await self._past_one(id_, sees_only)
        return Past(previous, [item for items in reversed(history) for item in items]), "", ""

    async def get(self, id_: str, include: Sequence[str], sees_only: str | None, caller: DeskCaller) -> bytes:
        """Returns a response as it stands, as JSON.

        Raises:
            GatewayError: NOT_FOUND: there is none, or it is somebody else's; or the provider's own error.
        """
        provider, kept = await self._known(id_, sees_only)
        if provider == OWN:
            return bytes(kept.response)
        return await self._ask((provider, kept.account), caller, "GET", id_, query=_query(include), of_itself=True)

    async def events(
        self,
        id_: str,
        include: Sequence[str],
        given: Sequence[tuple[str, str]],
        sees_only: str | None,
        caller: DeskCaller,
    ) -> AsyncGenerator[list[events_pb2.JsonEvent], None]:
        """Gives the events of a response again, as they come. It must be closed. What it raises is what `get` raises.

        Args:
            id_: The response.
            include: What to add to it.
            given: What else the provider is asked, such as where to begin.
            sees_only: Whose responses the caller sees.
            caller: Who asks.
        """
        provider, kept = await self._known(id_, sees_only)
        if provider == OWN:
            raise _invalid(
                "The gateway wrote this response itself and does not keep its events. Get it without 'stream'.", "stream"
            )
        path = f"{_path(id_)}?{urlencode((('stream', 'true'), *given, *_query(include)))}"
        async with self._resources(provider, caller, kept.account).open(
            "GET", path, headers={"Accept": "text/event-stream"}
        ) as exchange:
            decoder, ended = SSEDecoder(), False
            while True:
                piece = await exchange.next_piece()
                payloads = decoder.feed(piece) if piece else decoder.finish()
                if events := [_json_event(payload, provider) for payload in payloads if payload != _DONE]:
                    ended = ended or events[-1].type in ENDS
                    yield events
                if not piece:
                    break
            if not ended:
                raise GatewayError(
                    ErrorKind.ERROR_KIND_NETWORK_ERROR,
                    f"The provider '{provider}' broke off in the middle of the events. Get them again from the last one on.",
                    provider=provider,
                )

    async def input_items(
        self,
        id_: str,
        *,
        limit: int | None,
        after: str,
        order: str,
        include: Sequence[str],
        sees_only: str | None,
        caller: DeskCaller,
    ) -> bytes:
        """Returns a page of what a response was made from, as JSON. What it raises is what `get` raises.

        Args:
            id_: The response.
            limit: Most items to return, 1 to 100; None for 20.
            after: The item to begin after; empty for the first page.
            order: `asc`, or `desc` or empty.
            include: What to add to them.
            sees_only: Whose responses the caller sees.
            caller: Who asks.
        """
        if limit is not None and not 1 <= limit <= 100:
            raise _invalid("'limit' must be between 1 and 100.", "limit")
        if order not in {"", "asc", "desc"}:
            raise _invalid("'order' must be 'asc' or 'desc'.", "order")
        provider, kept = await self._known(id_, sees_only)
        if provider != OWN:
            given = (("limit", "" if limit is None else str(limit)), ("after", after), ("order", order))
            query = [(name, value) for name, value in given if value]
            return await self._ask((provider, kept.account), caller, "GET", id_, "/input_items", [*query, *_query(include)])
        items = kept.items if order == "asc" else kept.items[::-1]
        ids = [_ITEM.decode(item).id for item in items]
        if after and after not in ids:
            raise _invalid("'after' must be the id of an item of this response.", "after")
        start = ids.index(after) + 1 if after else 0
        end = start + (limit or 20)
        page = ids[start:end]
        return orjson.dumps(
            {
                "object": "list",
                "data": [orjson.Fragment(bytes(item)) for item in items[start:end]],
                "first_id": page[0] if page else None,
                "last_id": page[-1] if page else None,
                "has_more": end < len(items),
            }
        )

    async def cancel(self, id_: str, sees_only: str | None, caller: DeskCaller) -> bytes:
        """Has a response stopped that is made in the background, and returns it. What it raises is what `get` raises."""
        provider, kept = await self._known(id_, sees_only)
        if provider == OWN:
            raise _invalid("Only a response that is made in the background can be cancelled, and this one is not.", "id")
        return await self._ask((provider, kept.account), caller, "POST", id_, "/cancel", body=Body.of("application/json", b"{}"))

    async def delete(self, id_: str, sees_only: str | None, caller: DeskCaller) -> None:
        """Deletes a response. What it raises is what `get` raises."""
        provider, kept = await self._known(id_, sees_only)
        if provider != OWN:
            await self._ask((provider, kept.account), caller, "DELETE", id_, of_itself=True)
        await self._kept.forget(id_, provider)

    async def _ask(
        self,
        keeper: tuple[str, str],
        caller: DeskCaller,
        method: str,
        id_: str,
        below: str = "",
        query: Sequence[tuple[str, str]] = (),
        body: Body | None = None,
        *,
        of_itself: bool = False,
    ) -> bytes:
        provider, account = keeper
        path = f"{_path(id_)}{below}{'?' if query else ''}{urlencode(query)}"
        try:
            return await self._resources(provider, caller, account).ask(method, path, body)
        except GatewayError as error:
            # One that the provider has no more, because it was deleted past the gateway, is nobody's any more. Of what is below it,
            # a provider may just not know the route.
            if of_itself and error.upstream is not None and error.upstream.status in {404, 410}:
                await self._kept.forget(id_, provider)
            raise

    async def _known(self, id_: str, sees_only: str | None) -> tuple[str, Kept]:
        found = await self._kept.find(id_, sees_only)
        if found is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_FOUND,
                f"There is no response '{id_[:_ID_SHOWN]}'. Those made with store: false are not kept, others for 30 days.",
                param="id",
            )
        return found

    async def _past_one(self, id_: str, sees_only: str | None) -> tuple[str, Kept]:
        found = await self._kept.find(id_, sees_only)
        if found is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                f"Previous response with id '{id_[:_ID_SHOWN]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return found


async def drain(
    events: AsyncGenerator[list[events_pb2.JsonEvent], None], write: Callable[[list[events_pb2.JsonEvent]], Any]
) -> None:
    """Writes events as they come, and closes where they come from."""
    async with aclosing(events):
        async for some in events:
            await write(some)


def _path(id_: str) -> str:
    return f"/responses/{quote(id_, safe='')}"


def _query(include: Sequence[str]) -> list[tuple[str, str]]:
    return [("include[]", name) for name in include]


def _json_event(payload: bytes, provider: str) -> events_pb2.JsonEvent:
    try:
        return events_pb2.JsonEvent(type=_EVENT.decode(payload).type or "", json=payload.decode())
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise GatewayError(
            ErrorKind.ERROR_KIND_PROVIDER_ERROR,
            f"The provider '{provider}' sent an event that is not a JSON object. Get the response without 'stream'.",
            provider=provider,
        ) from None


def _invalid(message: str, param: str = "previous_response_id") -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message, param=param)
