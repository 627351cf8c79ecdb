"""The operation `embeddings`: inputs go in, and a vector comes back for each, in order.

It is a JSON operation with two things of its own. What a provider cannot take at once is sent in pieces, a few at a time; all those
of a target are one attempt, so that they are retried, passed on to the next target, counted and traced as one. And the numbers come
back in the format that was asked for. Above is EmbeddingsService; below is `vectors`, which reads answers.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec
from twinspan.v1 import content_pb2, embeddings_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.asking import Caller
from gateway.exchange import Exchange
from gateway.operations import json_text, vectors
from gateway.operations.json_operation import JsonAttempt, JsonOperation, Kind, invalid, usage_of
from gateway.operations.vectors import Encoding, Part
from gateway.providers.openai import faults
from gateway.providers.sender import Sender
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_BODY_LIMIT = 256 * 1024 * 1024
"""Most bytes of one answer: 2,048 vectors of 4,096 numbers in decimal are about 180 MB."""

_MOST_ON_THE_LOOP = 512 * 1024
"""Most bytes of answers that are put together on the event loop, which takes a few milliseconds; a thread takes more."""

_ERROR_BODY_LIMIT = 64 * 1024
_PIECES_AT_ONCE = 4

_Token: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Inputs: TypeAlias = Sequence[str | int | Sequence[int]]


class _Embedding(msgspec.Struct):
    model: str
    input: str | list[str | _Token | list[_Token]]
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


_KIND: Final = Kind("embeddings", "embeddings", "/embeddings", _Embedding)


async def embed(exchange: Exchange, request: embeddings_pb2.EmbedRequest, caller: Caller) -> embeddings_pb2.EmbedResponse:
    """Returns embeddings, in the form that the caller takes.

    Raises:
        GatewayError: There are none.
    """
    response = embeddings_pb2.EmbedResponse()
    with await exchange.open(EmbeddingsOperation(request, response), caller) as attempt:
        usage = attempt.usage
    if usage is not None and not request.accept_openai_json:
        response.usage.CopyFrom(usage)
    return response


class EmbeddingsOperation(JsonOperation):
    """Inputs to be embedded."""

    __slots__ = ("_inputs", "_response")

    def __init__(self, request: embeddings_pb2.EmbedRequest, response: embeddings_pb2.EmbedResponse) -> None:
        """Takes what is asked, and where the answer goes, its usage excepted."""
        super().__init__(_KIND, cast("Any", request))
        self._response = response
        self._inputs: _Inputs = ()

    def check(self, *, trusted: bool) -> None:
        """See `Operation.check`."""
        super().check(trusted=trusted)
        asked: _Embedding = self._checked
        if asked.encoding_format not in {None, "float", "base64"}:
            raise invalid("encoding_format", "'encoding_format' must be float or base64.")
        if asked.dimensions is not None and asked.dimensions < 1:
            raise invalid("dimensions", "'dimensions' must be at least 1.")
        self._inputs = _checked(asked.input)

    def fields_of(self, request: embeddings_pb2.EmbedRequest) -> dict[str, Any]:
        """See `JsonOperation.fields_of`."""
        fields = json_text.fields_of(request)
        tokens = fields.pop("input_tokens", None)
        if tokens is not None:
            if "input" in fields:
                raise invalid("input_tokens", "Give input or input_tokens, not both.")
            fields["input"] = [text.get("tokens", []) for text in tokens]
        return fields

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """See `Operation.span`."""
        span = super().span(tracing, parent)
        if span.recording:
            asked: _Embedding = self._checked
            if asked.encoding_format is not None:
                span.set_attributes({"gen_ai.request.encoding_formats": (asked.encoding_format,)})
            if asked.dimensions is not None:
                span.set_attributes({"gen_ai.embeddings.dimension.count": asked.dimensions})
        return span

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "EmbeddingsAttempt":
        """See `Operation.attempt`."""
        wanted: Encoding | None = None
        if self._request.accept_openai_json:
            wanted = "base64" if self._checked.encoding_format == "base64" else "float"
        return EmbeddingsAttempt(target, counts, span, self._fields, self._inputs, wanted, self._response)


class EmbeddingsAttempt(JsonAttempt):
    """Asks one target, in one piece or several, and reads the answers whole."""

    __slots__ = ("_inputs", "_response", "_wanted")

    def __init__(
        self,
        target: Target,
        counts: AttemptCounts,
        span: AttemptSpan,
        asked: dict[str, Any],
        inputs: _Inputs,
        wanted: Encoding | None,
        response: embeddings_pb2.EmbedResponse,
    ) -> None:
        """Makes an attempt.

        Args:
            target: See `Attempt`.
            counts: See `Attempt`.
            span: See `Attempt`.
            asked: The request's fields.
            inputs: The inputs of a list; empty if there is but one input.
            wanted: The numbers' format in an answer as JSON; None for a typed answer.
            response: Where the answer goes once it is whole.
        """
        super().__init__(target, counts, span, _KIND, asked)
        self._inputs = inputs
        self._wanted = wanted
        self._response = response

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the whole answer."""
        most = self.target.provider.most_embedding_inputs
        if len(self._inputs) <= most:
            parts = [await self._ask(sender, self._asked, remaining_seconds)]
        else:
            parts = await self._ask_in_pieces(sender, most, remaining_seconds)
        try:
            if sum(len(part.body) for part in parts) > _MOST_ON_THE_LOOP:
                await asyncio.to_thread(self._deliver, parts)
            else:
                self._deliver(parts)
        except (ValueError, TypeError, OverflowError):
            raise self._broken("sent embeddings that cannot be read", ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None
        self._done = self.is_whole = True
        self._counts.chunk(self._span.sampled_trace_id)

    def _deliver(self, parts: Sequence[Part]) -> None:
        """Puts the answer where it is wanted. If it raises a `ValueError`, `TypeError` or `OverflowError`, it cannot be read."""
        response = self._response
        if self._wanted is not None:
            response.openai_json = vectors.joined(parts, self._wanted)
        else:
            response.Clear()
            vectors.fill(response, parts)

    async def _ask_in_pieces(self, sender: Sender, most: int, remaining_seconds: float) -> list[Part]:
        """Returns the answers to all pieces in order; the first failure ends the other pieces.

        Raises:
            GatewayError: A piece has no answer.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + remaining_seconds
        inputs = self._inputs
        pieces = [inputs[start : start + most] for start in range(0, len(inputs), most)]
        self._span.set_attributes({"twinspan.pieces": len(pieces)})
        found: dict[int, Part] = {}
        left = iter(enumerate(pieces))

        async def ask_on() -> None:
            for number, piece in left:
                asked = {**self._asked, "input": piece}
                part = found[number] = await self._ask(sender, asked, max(deadline - loop.time(), 0.001))
                if part.count != len(piece):
                    what = f"sent {part.count} embeddings for {len(piece)} inputs"
                    raise self._broken(what, ErrorKind.ERROR_KIND_PROVIDER_ERROR)

        try:
            async with asyncio.TaskGroup() as asking:
                for _ in range(min(_PIECES_AT_ONCE, len(pieces))):
                    asking.create_task(ask_on())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others were cancelled for it, or failed at the same time
        return [found[number] for number in range(len(pieces))]

    async def _ask(self, sender: Sender, asked: Mapping[str, Any], remaining_seconds: float) -> Part:
        """Sends one request and returns its answer, whose usage is noted even if another piece fails later.

        Raises:
            GatewayError: There is no answer, or it is an error.
        """
        upstream = await sender.send(self._outbound(asked, remaining_seconds))
        try:
            self.status = upstream.status
            if upstream.status >= 400:
                body = await upstream.read(_ERROR_BODY_LIMIT)
                raise faults.of_status(upstream.status, upstream.headers, body, self.target.provider.name)
            part = self._read(await upstream.read(_BODY_LIMIT))
            upstream.release()
        finally:
            upstream.close()
        self._note(usage_of(part.usage))
        return part

    def _read(self, body: bytes) -> Part:
        try:
            return vectors.read(body)
        except ValueError:
            raise self._broken("sent something that is no list of embeddings", ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None

    def _note(self, usage: content_pb2.Usage | None) -> None:
        if usage is None:
            return
        if self._usage is None:
            self._usage = usage
            return
        self._usage.input_tokens += usage.input_tokens
        self._usage.output_tokens += usage.output_tokens
        self._usage.total_tokens += usage.total_tokens


def _checked(inputs: str | _Inputs) -> _Inputs:
    """Returns the inputs, if there are several: a text is one, and so is a list of tokens.

    Raises:
        GatewayError: There is none, or they are of several kinds.
    """
    if isinstance(inputs, str):
        return ()
    if not inputs:
        raise invalid("input", "'input' must hold at least one input.")
    kind = type(inputs[0])
    for number, one in enumerate(inputs):
        if type(one) is not kind:
            raise invalid(f"input[{number}]", "'input' must be a string, a list of strings, of tokens, or of lists of tokens.")
        if one == []:
            raise invalid(f"input[{number}]", f"'input[{number}]' must hold at least one token.")
    return () if kind is int else inputs
