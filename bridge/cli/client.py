"""A chat from the terminal's side, over either surface."""

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx
from twinspan.v1 import chat_pb2, content_pb2, models_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub
from twinspan.v1.models_pb2_grpc import ModelsServiceStub

from bridge import errors
from bridge.cli.problem import Problem

_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation.

    Attributes:
        role: `user` or `assistant`.
        text: What was said.
    """

    role: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What an answer turned out to be; it is filled in while the answer is read.

    Attributes:
        first_token_seconds: From sending to the first piece of text; 0 if there was none.
        input_tokens: Tokens read, if the provider said.
        output_tokens: Tokens written, if the provider said.
        provider: Who answered.
        model: The model that answered.
        cost_usd: What it cost; None if the price is not known.
    """

    first_token_seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    provider: str = ""
    model: str = ""
    cost_usd: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def saw_text(self) -> None:
        """Notes that text has come."""
        if not self.first_token_seconds:
            self.first_token_seconds = time.perf_counter() - self.started


class Client(Protocol):
    """Talks to a gateway."""

    def chat(self, model: str, turns: list[Turn], outcome: Outcome) -> AsyncGenerator[str, None]:
        """Gives the answer's text, piece by piece, and fills in `outcome`."""
        ...

    async def models(self) -> list[models_pb2.Model]:
        """Returns the models and agents that may be asked for."""
        ...

    async def close(self) -> None:
        """Closes the connection."""
        ...


class RestClient:
    """Talks to a bridge over HTTP."""

    def __init__(self, url: str, token: str, max_tokens: int | None = None) -> None:
        """Makes a client.

        Args:
            url: The bridge's address, without `/v1`.
            token: The credential.
            max_tokens: Where to cut an answer off; None leaves its length to the model.
        """
        self._limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._url = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(300.0, connect=_CONNECT_SECONDS)
        )

    async def chat(self, model: str, turns: list[Turn], outcome: Outcome) -> AsyncGenerator[str, None]:
        """See `Client.chat`."""
        body = {
            "model": model,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._limit,
        }
        try:
            async with self._http.stream("POST", f"{self._url}/v1/chat/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise rest_problem(response.status_code, await response.aread())
                outcome.provider = response.headers.get("X-Twinspan-Provider", "")
                outcome.model = response.headers.get("X-Twinspan-Model", "")
                outcome.cost_usd = _cost(response.headers.get("X-Twinspan-Cost-Usd"))
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        for text in _read_chunk(json.loads(line[6:]), outcome):
                            yield text
        except httpx.TransportError as error:
            raise Problem(
                f"{self._url} does not answer ({type(error).__name__}). Is the gateway running? Start it: twinspan serve"
            ) from error

    async def models(self) -> list[models_pb2.Model]:
        """See `Client.models`."""
        try:
            response = await self._http.get(f"{self._url}/v1/models")
        except httpx.TransportError as error:
            raise Problem(
                f"{self._url} does not answer ({type(error).__name__}). Is the gateway running? Start it: twinspan serve"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise rest_problem(response.status_code, response.content)
        return [_model(model) for model in response.json()["data"]]

    async def close(self) -> None:
        """See `Client.close`."""
        await self._http.aclose()


class GrpcClient:
    """Talks to a core over gRPC."""

    def __init__(self, target: str, token: str, max_tokens: int | None = None) -> None:
        """Makes a client; `target` is `host:port`, and the rest as for `RestClient`."""
        self._target = target
        self._max_tokens = max_tokens
        self._channel = grpc.aio.insecure_channel(target)
        self._chat = ChatServiceStub(self._channel)
        self._models = ModelsServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def chat(self, model: str, turns: list[Turn], outcome: Outcome) -> AsyncGenerator[str, None]:
        """See `Client.chat`."""
        request = chat_pb2.StreamRequest(
            chat=chat_pb2.ChatRequest(
                model=model,
                messages=[
                    content_pb2.Message(role=content_pb2.Role.Value(f"ROLE_{turn.role.upper()}"), text=turn.text) for turn in turns
                ],
                max_tokens=self._max_tokens,
            )
        )
        call = self._chat.Stream(request, metadata=self._metadata)
        try:
            async for response in call:
                for event in response.events:
                    text = event.text or "".join(choice.text for choice in event.chunk.choices)
                    if text:
                        outcome.saw_text()
                        yield text
                    if event.chunk.HasField("usage"):
                        outcome.input_tokens = event.chunk.usage.input_tokens
                        outcome.output_tokens = event.chunk.usage.output_tokens
            facts = dict(await call.trailing_metadata())
            outcome.provider = str(facts.get("x-twinspan-provider", ""))
            outcome.model = str(facts.get("x-twinspan-model", ""))
            outcome.cost_usd = _cost(facts.get("x-twinspan-cost-usd"))
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error
        finally:
            call.cancel()

    async def models(self) -> list[models_pb2.Model]:
        """See `Client.models`."""
        try:
            response = await self._models.List(models_pb2.ModelsServiceListRequest(), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error
        return list(response.models)

    async def close(self) -> None:
        """See `Client.close`."""
        await self._channel.close()


def _model(listed: dict[str, Any]) -> models_pb2.Model:
    fields = {name: value for name, value in listed.items() if name in models_pb2.Model.DESCRIPTOR.fields_by_name}
    return models_pb2.Model(**{**fields, "source": f"MODEL_SOURCE_{listed.get('source', 'unspecified').upper()}"})


def _read_chunk(chunk: dict[str, Any], outcome: Outcome) -> list[str]:
    if "error" in chunk:
        raise Problem(str(chunk["error"].get("message", chunk["error"])))
    usage = chunk.get("usage")
    if usage:
        outcome.input_tokens = usage["prompt_tokens"]
        outcome.output_tokens = usage["completion_tokens"]
    texts = [text for choice in chunk["choices"] if (text := choice["delta"].get("content"))]
    if texts:
        outcome.saw_text()
    return texts


def _cost(said: str | bytes | None) -> float | None:
    return None if said is None else float(said)


def grpc_problem(target: str, error: grpc.aio.AioRpcError) -> Problem:
    """Returns what a failed RPC means to a user."""
    failure = errors.of_rpc(error)
    if error.code() == grpc.StatusCode.UNAVAILABLE and not failure.metadata:
        return Problem(f"{target} does not answer. Is the gateway running? Start it: twinspan serve")
    return Problem(f"{failure.message} ({failure.kind_name})")


def rest_problem(status: int, body: bytes) -> Problem:
    """Returns what a failed request means to a user."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    return Problem(f"{message} (HTTP {status})")
