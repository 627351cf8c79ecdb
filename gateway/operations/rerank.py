"""The operation `rerank`: documents go in, and come back scored by how well they answer a query.

Three forms of it are in use. Cohere's and Jina's differ in what they take and give back the same `results`; Voyage's says `top_k`
and `data`. Which one a provider speaks is the provider's (`Provider.rerank_style`), and which one a client gets is the one that it
asked in; between them stand the few facts that all three have. Documents are repeated to the client from its own request, so that
no provider has to send them back. Above is RerankService; below is `json_operation`.

Sources: https://docs.cohere.com/v2/reference/rerank, https://jina.ai/reranker, https://docs.voyageai.com/reference/reranker-api.
"""

from typing import Any, Final, TypeAlias, cast

import msgspec
import orjson
from msgspec import Raw
from orjson import Fragment
from twinspan.v1 import rerank_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.asking import Caller
from gateway.exchange import Exchange
from gateway.operations import json_text
from gateway.operations.json_operation import JsonAttempt, JsonOperation, Kind, invalid, usage_of
from gateway.providers.provider import Provider
from gateway.providers.sender import Sender
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan

_OWN = frozenset({"documents", "top_n", "top_k", "return_documents"})
_ANSWERED = frozenset({"results", "data", "object"})
_COMPATIBILITY: Final = "/compatibility/v1"
"""Where Cohere has OpenAI's interface, which its own stands beside."""

_Document: TypeAlias = str | dict[str, Raw]


class _Rerank(msgspec.Struct):
    query: str
    documents: list[_Document]
    model: str | None = None
    top_n: int | None = None
    top_k: int | None = None
    return_documents: bool | None = None


_KIND: Final = Kind("rerank", "rerank", "/rerank", _Rerank, needs_model=False)
_RESULTS = msgspec.json.Decoder(list[dict[str, Raw]])


async def rerank(exchange: Exchange, request: rerank_pb2.RerankRequest, caller: Caller) -> rerank_pb2.RerankResponse:
    """Returns scores, in the form that the caller takes.

    Raises:
        GatewayError: There are none.
    """
    response = rerank_pb2.RerankResponse()
    with await exchange.open(RerankOperation(cast("Any", request)), caller) as attempt:
        answer, fields, usage = attempt.body, attempt.fields, attempt.usage
    if request.accept_openai_json:
        response.openai_json = answer
        return response
    fields.pop("usage", None)
    json_text.fill(response, fields)
    if usage is not None:
        response.usage.CopyFrom(usage)
    return response


class RerankOperation(JsonOperation):
    """Documents to be scored."""

    __slots__ = ()

    def __init__(self, request: Any) -> None:
        """Takes what is asked."""
        super().__init__(_KIND, request)

    def check(self, *, trusted: bool) -> None:
        """See `Operation.check`."""
        super().check(trusted=trusted)
        asked: _Rerank = self._checked
        if not asked.documents:
            raise invalid("documents", "'documents' must hold at least one document.")
        if asked.top_n is not None and asked.top_k is not None:
            raise invalid("top_k", "Give top_n or top_k, not both: they mean the same.")
        for name, count in (("top_n", asked.top_n), ("top_k", asked.top_k)):
            if count is not None and not 1 <= count < 2**31:
                raise invalid(name, f"'{name}' must be at least 1.")

    def url(self, provider: Provider) -> str:
        """See `Operation.url`."""
        return _url(provider)

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "RerankAttempt":
        """See `Operation.attempt`."""
        fields = {name: value for name, value in self._fields.items() if name not in _OWN}
        return RerankAttempt(target, counts, span, fields, self._checked)


class RerankAttempt(JsonAttempt):
    """Asks one target in its form, and reads its answer into the client's."""

    __slots__ = ("_request",)

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, fields: dict[str, Any], request: _Rerank) -> None:
        """Makes an attempt to get documents scored.

        Args:
            target: See `Attempt`.
            counts: See `Attempt`.
            span: See `Attempt`.
            fields: The fields that all forms have alike, or none of them knows.
            request: What is asked.
        """
        super().__init__(target, counts, span, _KIND, {**fields, **_asked(request, target.provider.rerank_style)})
        self._request = request

    def address(self) -> str:
        """See `JsonAttempt.address`."""
        return _url(self.target.provider)

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the whole answer, in the client's form."""
        await super().open(sender, remaining_seconds)
        fields = self.fields
        try:
            scored = _RESULTS.decode(fields.get("results") or fields.get("data") or b"")
            results = [self._result(one) for one in scored]
        except (ValueError, RecursionError):
            message = "sent something that is no list of scores"
            raise self._broken(message, ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None
        others = {name: Fragment(bytes(raw)) for name, raw in fields.items() if name not in _ANSWERED}
        if self._request.top_k is not None:
            self.body = orjson.dumps({"object": "list", "data": results, **others})
        else:
            self.body = orjson.dumps({"results": results, **others})
        self.fields = json_text.scan(self.body)
        if self._usage is None:
            self._usage = _cohere_usage(fields.get("meta"))

    def _result(self, one: dict[str, Raw]) -> dict[str, Any]:
        """Returns a score in the client's form.

        Raises:
            ValueError: It is none, or of no document that was sent.
        """
        place = msgspec.json.decode(one.get("index", b""), type=int)
        score = msgspec.json.decode(one.get("relevance_score", b""), type=float)
        documents = self._request.documents
        if not 0 <= place < len(documents):
            raise ValueError("no such document")
        others = {name: Fragment(bytes(raw)) for name, raw in one.items() if name != "document"}
        result = {**others, "index": place, "relevance_score": score}
        if self._request.return_documents:
            document = documents[place]
            if self._request.top_k is not None:
                result["document"] = _text(document)
            else:
                result["document"] = {"text": document} if isinstance(document, str) else _as_json(document)
        return result


def _asked(request: _Rerank, style: str) -> dict[str, Any]:
    """Returns the fields in which a provider's form is its own."""
    count = request.top_n if request.top_n is not None else request.top_k
    fields: dict[str, Any]
    if style == "jina":  # it alone takes objects, which may be images, and repeats documents unless it is told not to
        documents = [one if isinstance(one, str) else _as_json(one) for one in request.documents]
        fields = {"documents": documents, "return_documents": False}
    else:
        fields = {"documents": [_text(one) for one in request.documents]}
    if count is not None:
        fields["top_k" if style == "voyage" else "top_n"] = count
    return fields


def _as_json(document: dict[str, Raw]) -> dict[str, Fragment]:
    return {name: Fragment(bytes(raw)) for name, raw in document.items()}


def _text(document: _Document) -> str:
    """Returns a document as the one string that it is to a provider that takes no objects: its text, else its JSON."""
    if isinstance(document, str):
        return document
    try:
        if len(document) == 1:
            return msgspec.json.decode(document["text"], type=str)
    except (KeyError, ValueError):
        pass
    return orjson.dumps(_as_json(document)).decode()


def _url(provider: Provider) -> str:
    base = provider.base_url
    if provider.rerank_style == "cohere" and base.endswith(_COMPATIBILITY):
        return f"{base.removesuffix(_COMPATIBILITY)}/v2/rerank"
    return provider.url(_KIND.path)


def _cohere_usage(meta: Raw | None) -> Any:
    """Returns what was consumed, as Cohere says it."""
    try:
        return usage_of(json_text.scan(bytes(meta)).get("tokens")) if meta is not None else None
    except ValueError:
        return None
