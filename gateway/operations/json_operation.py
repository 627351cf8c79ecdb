"""Operations that send one JSON object and get one back, in OpenAI's form: moderations, embeddings and their like.

Callers speak typed messages, or carry the JSON itself (`openai_json`), as the bridge does. Either becomes a map of fields, whose
types are checked once, here; unknown fields go through as they are. Above are the services, which name the kind of operation; below
are `json_text`, which knows messages, and the attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
import orjson
from msgspec import Raw
from orjson import Fragment
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.asking import Caller
from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.limits.estimate import Size, roughly_tokens
from gateway.operations import json_text
from gateway.operations.json_text import UnwritableError
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_BODY_LIMIT = 64 * 1024 * 1024
_NULL: Final = Raw(b"null")
_TYPE_NAMES = {
    "str": "a string",
    "bool": "a boolean",
    "int": "an integer",
    "float": "a number",
    "object": "an object",
    "null": "absent",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation.

    Attributes:
        name: What spans call it, such as `embeddings`: `gen_ai.operation.name`.
        service: The capability that a provider declares for it, such as `moderations`.
        path: Where providers have it, below their base URL.
        shape: A `msgspec.Struct` of the fields that are checked; others are not looked at.
        creates: Whether asking twice makes two things.
        needs_model: Whether a request must name a model.
        asks_for_usage: Whether a stream tells its usage only if it is asked to, with `stream_options`.
        ends: The types of the events that end a stream; empty where an event's form tells.
    """

    name: str
    service: str
    path: str
    shape: type[msgspec.Struct]
    creates: bool = False
    needs_model: bool = True
    asks_for_usage: bool = False
    ends: frozenset[str] = frozenset()


class JsonRequest(Protocol):
    """A request that may carry JSON."""

    openai_json: bytes
    accept_openai_json: bool

    def HasField(self, field_name: Any) -> bool:  # noqa: N802 (protobuf's name)
        """Tells whether a field is given."""


class JsonResponse(Protocol):
    """A response that may carry JSON."""

    openai_json: bytes


class WholeAnswer(Protocol):
    """An answer that is one JSON object.

    Attributes:
        body: The object.
        fields: Its fields, unread.
    """

    body: bytes
    fields: json_text.Fields

    @property
    def usage(self) -> content_pb2.Usage | None:
        """What it consumed; None if the provider did not say."""


_R = TypeVar("_R", bound=JsonResponse)


async def ask(exchange: Exchange, kind: Kind, request: JsonRequest, response: _R, caller: Caller) -> _R:
    """Gets an answer, puts it into `response` in the form that the caller takes, and returns it.

    Raises:
        GatewayError: There is no answer.
    """
    with await exchange.open(JsonOperation(kind, request), caller) as attempt:
        return put(attempt, request, response)


def put(answer: "WholeAnswer", request: JsonRequest, response: _R) -> _R:
    """Puts an answer into `response` in the form that the caller takes, and returns it."""
    if request.accept_openai_json:
        response.openai_json = answer.body
        return response
    message: Any = response
    fields, usage = answer.fields, answer.usage
    if "usage" in message.DESCRIPTOR.fields_by_name and usage is not None:
        del fields["usage"]
        message.usage.CopyFrom(usage)
    json_text.fill(message, fields)
    return response


class JsonOperation:
    """A request of some kind.

    Attributes:
        raw: The request's fields but the model, unread, once it is checked.
    """

    __slots__ = ("_checked", "_fields", "_kind", "_request", "model", "raw")

    def __init__(self, kind: Kind, request: JsonRequest) -> None:
        """Takes what is asked; `check` looks at it."""
        self.model = ""
        self._kind = kind
        self._request = request
        self.raw: json_text.Fields = {}
        self._fields: dict[str, Any] = {}
        self._checked: Any = None

    @property
    def service(self) -> str | None:
        """See `Operation.service`."""
        return None if self._kind.needs_model else self._kind.service

    @property
    def creates(self) -> bool:
        """See `Operation.creates`."""
        return self._kind.creates

    @property
    def repeatable(self) -> bool:
        """See `Operation.repeatable`."""
        return not self.creates

    def check(self, *, trusted: bool) -> None:  # noqa: ARG002 (nobody has looked at it before)
        """See `Operation.check`."""
        text = self._text()
        try:
            fields = json_text.scan(text)
        except ValueError as error:
            raise invalid(None, f"The body is not a JSON object: {error}.") from None
        try:
            checked = msgspec.json.decode(text, type=self._kind.shape)
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        self._checked = checked
        self.model = getattr(checked, "model", None) or ""
        fields.pop("model", None)
        self.raw = fields
        self._fields = {name: Fragment(bytes(raw)) for name, raw in fields.items()}

    def fields_of(self, request: Any) -> dict[str, Any]:
        """Returns a typed request's fields as values that orjson writes.

        Raises:
            UnwritableError: A field has no form in JSON.
        """
        return json_text.fields_of(request)

    def _text(self) -> bytes:
        if self._request.HasField("openai_json"):
            return self._request.openai_json
        try:
            return orjson.dumps(self.fields_of(self._request))
        except UnwritableError as error:
            raise invalid(error.path, f"{error}.") from None

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """See `Operation.span`."""
        return tracing.operation_span(parent, self._kind.name, self.model)

    def instruct(self, agent: Agent) -> None:
        """See `Operation.instruct`: there is nobody to instruct."""

    def url(self, provider: Provider) -> str:
        """See `Operation.url`."""
        return provider.url(self._kind.path)

    def size(self) -> Size:
        """See `Operation.size`: by the length of all that was said."""
        return Size(roughly_tokens(sum(map(len, map(bytes, self.raw.values())))))

    def session(self) -> bytes | None:
        """See `Operation.session`: it is no conversation."""
        return None

    def shorter(self) -> None:
        """See `Operation.shorter`: it cannot be asked again."""

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "JsonAttempt":
        """See `Operation.attempt`."""
        return JsonAttempt(target, counts, span, self._kind, self._fields)


class JsonAttempt(Attempt):
    """Asks one target, and reads its answer whole.

    Attributes:
        body: The answer, once it is open: a JSON object.
        fields: Its fields, unread.
    """

    __slots__ = ("_asked", "_kind", "_usage", "body", "fields")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, kind: Kind, asked: dict[str, Any]) -> None:
        """Makes an attempt to get these fields answered; the rest as for `Attempt`."""
        super().__init__(target, counts, span)
        self.body = b""
        self.fields: json_text.Fields = {}
        self._kind = kind
        self._asked = asked
        self._usage: content_pb2.Usage | None = None

    @property
    def usage(self) -> content_pb2.Usage | None:
        """See `Attempt.usage`."""
        return self._usage

    @property
    def info(self) -> chat_pb2.ResponseInfo | None:
        """See `Attempt.info`."""
        return None

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the whole answer."""
        upstream = await self._send(sender, self._outbound(self._asked, remaining_seconds))
        body = await upstream.read(_BODY_LIMIT)
        try:
            self.fields = json_text.scan(body)
        except ValueError:
            raise self._broken("sent something that is not a JSON object", ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None
        self.body = body
        self._usage = usage_of(self.fields.get("usage"))
        self._done = self.is_whole = True
        self._counts.chunk(self._span.sampled_trace_id)

    def address(self) -> str:
        """Returns where the target is asked."""
        return self.target.provider.url(self._kind.path)

    def _outbound(self, asked: Mapping[str, Any], remaining_seconds: float) -> OutboundRequest:
        """Returns the request that asks for these fields to be answered."""
        provider, model = self.target.provider, self.target.model
        return OutboundRequest(
            url=self.address(),
            headers={**provider.headers, **dict(self._span.headers)},
            body=orjson.dumps({"model": model, **asked} if model else asked),
            timeouts=Timeouts(provider.timeouts.connect, remaining_seconds, remaining_seconds, remaining_seconds),
            provider=provider.name,
            model=model,
            repeatable=not self._kind.creates,
        )


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: _Count | None = None
    cache_creation_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    input_tokens: int = 0
    completion_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: Raw = _NULL
    input_tokens_details: Raw = _NULL
    completion_tokens_details: Raw = _NULL
    output_tokens_details: Raw = _NULL


_DETAILS: msgspec.json.Decoder[_Details | None] = msgspec.json.Decoder(_Details | None)
_NO_DETAILS: Final = _Details()


def usage_of(raw: Raw | None) -> content_pb2.Usage | None:
    """Returns what was consumed, by either of the names that providers have for it; None if they do not say."""
    if raw is None:
        return None
    try:
        said = msgspec.json.decode(raw, type=_Usage)
    except msgspec.MsgspecError:
        return None
    counts = (said.prompt_tokens or said.input_tokens, said.completion_tokens or said.output_tokens, said.total_tokens)
    if not any(counts) or min(counts) < 0:
        return None
    read, written, total = counts
    read = read or max(0, total - written)
    of_input = _details(said.prompt_tokens_details, said.input_tokens_details)
    of_output = _details(said.completion_tokens_details, said.output_tokens_details)
    return content_pb2.Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=total or read + written,
        cached_input_tokens=of_input.cached_tokens,
        cache_creation_input_tokens=of_input.cache_creation_tokens,
        reasoning_tokens=of_output.reasoning_tokens,
    )


def _details(*said: Raw) -> _Details:
    """Returns the first details that say anything; what cannot be read says nothing."""
    for raw in said:
        try:
            details = _DETAILS.decode(raw)
        except msgspec.MsgspecError:
            continue
        if details is not None:
            return details
    return _NO_DETAILS


def _wrong_type(error: msgspec.ValidationError) -> GatewayError:
    """Returns the client's form of a decoder's error, with the place of the field."""
    what, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    if "missing required field" in what:
        field = what.rpartition("field `")[2].rstrip("`")
        place = f"{place}.{field}" if place else field
        return invalid(place, f"'{place}' must be given.")
    wanted = what.partition("`")[2].partition("`")[0].removesuffix(" | null")
    expected = " or ".join(_TYPE_NAMES.get(kind, f"an {kind}") for kind in wanted.split(" | ")) if wanted else what.lower()
    return invalid(place or None, f"'{place}' must be {expected}." if place else "The body is not a JSON object.")


def invalid(param: str | None, message: str) -> GatewayError:
    """Returns the error of a request that cannot be sent; `param` is the field at fault."""
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message, param=param)
