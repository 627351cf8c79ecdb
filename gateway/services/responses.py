"""ResponsesService: answers in the form of OpenAI's Responses API, by any provider: see `gateway.responses`."""

from typing import Any, Final

import msgspec
from msgspec import Raw
from twinspan.v1 import events_pb2, responses_pb2

from gateway.exchange import Exchange
from gateway.operations import json_operation, json_text
from gateway.operations.json_operation import Kind, usage_of
from gateway.responses.desk import ENDS, ResponseDesk, drain
from gateway.responses.keeping import Keeping
from gateway.responses.kept import KeptResponses
from gateway.responses.operation import ItemIdentifiers, Past, StreamedResponse, WholeResponse
from gateway.rpc.call import RpcCall
from gateway.services.ownership import caller_name, sees_only


class _Request(msgspec.Struct):
    model: str
    input: str | list[dict[str, Raw]] | None = None
    instructions: str | list[dict[str, Raw]] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    # Which of several providers has made what this names is not known here, nor for whom.
    conversation: None = None


_KIND: Final = Kind("generate_content", "responses", "/responses", _Request, ends=ENDS)


class ResponsesService:
    """Serves `twinspan.v1.ResponsesService`."""

    def __init__(self, exchange: Exchange, kept: KeptResponses, desk: ResponseDesk) -> None:
        """Makes the service.

        Args:
            exchange: Gets answers.
            kept: Keeps them.
            desk: Knows those that were made before.
        """
        self._exchange = exchange
        self._kept = kept
        self._desk = desk
        self._identifiers = ItemIdentifiers()

    async def Create(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceCreateRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceCreateResponse:
        """Answers in one message."""
        operation = WholeResponse(_KIND, request, self._identifiers.new)
        past, provider, account = await self._past(operation, call)
        async with Keeping(self._kept, operation, caller_name(call), past) as keeping:
            with await self._exchange.open(operation, call, provider=provider, account=account) as answer:
                await keeping.ended()
                return json_operation.put(answer, request, responses_pb2.ResponsesServiceCreateResponse())

    async def Stream(self, request: responses_pb2.ResponsesServiceStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Answers as the model writes."""
        operation = StreamedResponse(_KIND, request.request, self._identifiers.new)
        past, provider, account = await self._past(operation, call)
        async with Keeping(self._kept, operation, caller_name(call), past) as keeping:
            with await self._exchange.open(operation, call, provider=provider, account=account) as answer:
                await call.announce()
                events = answer.first
                keeping.begun(events)
                while events:
                    if operation.answered_now:
                        await keeping.ended()  # before a client can know that there is something to come back to
                    message = responses_pb2.ResponsesServiceStreamResponse(events=events)
                    if (usage := answer.usage) is not None:
                        message.usage.CopyFrom(usage)
                    await call.write(message)
                    events = await answer.next()

    async def Get(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceGetRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceGetResponse:
        """Returns an answer as it stands."""
        body = await self._desk.get(request.id, request.include, sees_only(call), call)
        return responses_pb2.ResponsesServiceGetResponse(response=_response(body, carried=request.accept_openai_json))

    async def GetStream(self, request: responses_pb2.ResponsesServiceGetStreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Gives the events of an answer again."""
        given: list[tuple[str, str]] = []
        if request.HasField("starting_after"):
            given.append(("starting_after", str(request.starting_after)))
        if request.HasField("include_obfuscation"):
            given.append(("include_obfuscation", str(request.include_obfuscation).lower()))

        async def write(events: list[events_pb2.JsonEvent]) -> None:
            await call.announce()
            await call.write(responses_pb2.ResponsesServiceGetStreamResponse(events=events))

        await drain(self._desk.events(request.id, request.include, given, sees_only(call), call), write)

    async def ListInputItems(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceListInputItemsRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceListInputItemsResponse:
        """Lists the items of what an answer was made from."""
        page = await self._desk.input_items(
            request.id,
            limit=request.limit if request.HasField("limit") else None,
            after=request.after,
            order=request.order,
            include=request.include,
            sees_only=sees_only(call),
            caller=call,
        )
        return responses_pb2.ResponsesServiceListInputItemsResponse(page=page.decode())

    async def Cancel(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceCancelRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceCancelResponse:
        """Stops an answer that is made in the background."""
        body = await self._desk.cancel(request.id, sees_only(call), call)
        return responses_pb2.ResponsesServiceCancelResponse(response=_response(body, carried=request.accept_openai_json))

    async def Delete(  # noqa: N802 (the RPC's name)
        self, request: responses_pb2.ResponsesServiceDeleteRequest, call: RpcCall
    ) -> responses_pb2.ResponsesServiceDeleteResponse:
        """Deletes an answer."""
        await self._desk.delete(request.id, sees_only(call), call)
        return responses_pb2.ResponsesServiceDeleteResponse(id=request.id)

    async def _past(self, operation: WholeResponse | StreamedResponse, call: RpcCall) -> tuple[Past | None, str, str]:
        """Finds what a request goes on from, tells the operation, and returns it with who alone can go on: provider and account."""
        operation.check(trusted=call.trusted)
        previous = operation.previous
        if previous is None:
            return None, "", ""
        past, provider, account = await self._desk.past(previous, sees_only(call))
        operation.go_on_from(past)
        return past, provider, account


def _response(body: bytes, *, carried: bool) -> responses_pb2.ResponsesServiceCreateResponse:
    """Returns an answer in the form that the caller takes."""
    response = responses_pb2.ResponsesServiceCreateResponse()
    if carried:
        response.openai_json = body
        return response
    message: Any = response
    fields = json_text.scan(body)
    if (usage := usage_of(fields.get("usage"))) is not None:
        del fields["usage"]
        message.usage.CopyFrom(usage)
    json_text.fill(message, fields)
    return response
