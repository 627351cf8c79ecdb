"""The ways to ask the gateway for a chat, and all that a client of each sees of the answer, in the form of REST."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import openai
from openai import AsyncOpenAI
from twinspan.v1 import chat_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from bridge.dialects.openai_chat import response as whole_dialect
from bridge.dialects.openai_chat.request import ChatBody
from bridge.dialects.openai_chat.stream import StreamRenderer
from tests.flows.running import Running

_SECONDS = 10


@dataclass
class Seen:
    """What a client sees.

    Attributes:
        status: The HTTP status; over gRPC, that of the error.
        code: The status of the RPC; None over REST.
        answer: The whole answer, or the events of a stream.
        errors: The kinds of the errors, in the order in which they came.
        message: The last error's message.
        facts: What is said of the answer beside it, such as `x-twinspan-attempts`.
        well_ended: Whether the answer came to the end that its dialect has, with nothing after it.
    """

    status: int = 200
    code: grpc.StatusCode | None = None
    answer: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    message: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    well_ended: bool = False

    @property
    def attempts(self) -> str:
        return self.facts.get("x-twinspan-attempts", "")

    @property
    def provider(self) -> str:
        return self.facts.get("x-twinspan-provider", "")


@dataclass(frozen=True, slots=True)
class Clients:
    """What asks."""

    twinspan: Running
    sdk: AsyncOpenAI


Ask = Callable[[Clients, Mapping[str, Any], str, Callable[[], None]], Awaitable[Seen]]
"""Asks with a body and a token; the last argument is called whenever a piece of the answer has come."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A way to ask."""

    name: str
    streams: bool
    ask: Ask


async def _rest_stream(clients: Clients, body: Mapping[str, Any], token: str, seen: Callable[[], None]) -> Seen:
    outcome = Seen()
    rest, asked = clients.twinspan.rest, {**body, "stream": True}
    async with rest.stream("POST", "/v1/chat/completions", json=asked, headers=_bearer(token), timeout=_SECONDS) as response:
        outcome.status, outcome.facts = response.status_code, _facts(response.headers)
        if not response.headers["Content-Type"].startswith("text/event-stream"):
            await response.aread()
            _note_error(outcome, response.json())
            outcome.well_ended = True
            return outcome
        async for line in response.aiter_lines():
            if not line:
                continue
            assert line.startswith("data: "), line
            assert not outcome.well_ended, f"after the end came {line}"
            if line == "data: [DONE]":
                outcome.well_ended = True
            elif "error" in (event := json.loads(line[6:])):
                _note_error(outcome, event)
            else:
                assert not outcome.errors, f"after the error came {line}"
                outcome.answer.append(event)
                seen()
    return outcome


async def _rest_whole(clients: Clients, body: Mapping[str, Any], token: str, _seen: Callable[[], None]) -> Seen:
    rest, asked = clients.twinspan.rest, {**body, "stream": False}
    response = await rest.post("/v1/chat/completions", json=asked, headers=_bearer(token), timeout=_SECONDS)
    outcome = Seen(response.status_code, facts=_facts(response.headers), well_ended=True)
    answer = response.json()
    if "error" in answer:
        _note_error(outcome, answer)
    else:
        outcome.answer = [answer]
    return outcome


async def _sdk_stream(clients: Clients, body: Mapping[str, Any], token: str, seen: Callable[[], None]) -> Seen:
    outcome = Seen()
    sdk = clients.sdk.with_options(api_key=token, timeout=_SECONDS)
    asked: Any = {**body, "stream": True}
    try:
        response = await sdk.chat.completions.with_raw_response.create(**asked)
        outcome.facts = _facts(response.headers)
        async with response.parse() as stream:
            async for chunk in stream:
                outcome.answer.append(chunk.to_dict())
                seen()
    except openai.APIStatusError as error:
        outcome.status, outcome.facts = error.status_code, _facts(error.response.headers)
        _note_error(outcome, error.response.json())
    except openai.APIError as error:  # what the SDK makes of an error among the events, of which it keeps no kind
        outcome.errors.append(str(error.code))
        outcome.message = error.message
    outcome.well_ended = True
    return outcome


def _grpc(channel: str, *, stream: bool) -> Ask:
    async def ask(clients: Clients, body: Mapping[str, Any], token: str, seen: Callable[[], None]) -> Seen:
        outcome = Seen(code=grpc.StatusCode.OK)
        stub = ChatServiceStub(getattr(clients.twinspan, channel))
        metadata = (("authorization", f"Bearer {token}"),)
        asked = body_of(body)
        under_way: Any
        try:
            if stream:
                request = chat_pb2.StreamRequest()
                asked.fill(request.chat)
                renderer = StreamRenderer(include_usage=asked.include_usage)
                under_way = stub.Stream(request, metadata=metadata, timeout=_SECONDS)
                async for message in under_way:
                    shown = renderer.render(message).decode()
                    outcome.answer += [json.loads(event.removeprefix("data: ")) for event in shown.split("\n\n") if event]
                    seen()
            else:
                whole = chat_pb2.CompleteRequest()
                asked.fill(whole.chat)
                under_way = stub.Complete(whole, metadata=metadata, timeout=_SECONDS)
                outcome.answer = [json.loads(whole_dialect.render(await under_way))]
        except grpc.aio.AioRpcError as error:
            failure = errors.of_rpc(error)
            outcome.status, outcome.code, outcome.message = failure.status, error.code(), failure.message
            outcome.errors.append(failure.kind_name)
        outcome.facts = {key: value for key, value in await under_way.trailing_metadata() if isinstance(value, str)}
        outcome.well_ended = True
        return outcome

    return ask


def body_of(body: Mapping[str, Any]) -> ChatBody:
    """Returns a body in the form in which HTTP clients write it: a conversation is known by what is written."""
    return ChatBody(json.dumps(body, separators=(",", ":")).encode())


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _facts(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _note_error(outcome: Seen, answer: Mapping[str, Any]) -> None:
    outcome.errors.append(answer["error_kind"])
    outcome.message = answer["error"]["message"]


SURFACES = (
    Surface("REST, streamed", True, _rest_stream),
    Surface("REST, whole", False, _rest_whole),
    Surface("REST, streamed to the OpenAI SDK", True, _sdk_stream),
    Surface("gRPC Stream", True, _grpc("network", stream=True)),
    Surface("gRPC Complete", False, _grpc("network", stream=False)),
    Surface("gRPC Stream in process", True, _grpc("inprocess", stream=True)),
    Surface("gRPC Complete in process", False, _grpc("inprocess", stream=False)),
)
