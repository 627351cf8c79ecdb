"""Every route of inference beside its RPC: the same answer, facts, errors, rights, spans and counts, whatever is asked.

Chats have a suite of their own in `test_parity`, in more detail; what is here holds for all of the others.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from twinspan.v1 import (
    audio_pb2,
    completions_pb2,
    embeddings_pb2,
    forms_pb2,
    images_pb2,
    moderations_pb2,
    rerank_pb2,
    responses_pb2,
)
from twinspan.v1.audio_pb2_grpc import AudioServiceStub
from twinspan.v1.completions_pb2_grpc import CompletionsServiceStub
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from twinspan.v1.images_pb2_grpc import ImagesServiceStub
from twinspan.v1.moderations_pb2_grpc import ModerationsServiceStub
from twinspan.v1.rerank_pb2_grpc import RerankServiceStub
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge import errors
from tests.flows.running import TOKEN, Running, running_over
from tests.flows.test_parity import Outcome, names
from tests.flows.upstream import MODEL, OTHERS, Script, Upstream, hangs, streams, text, whole

BOUND, READER, NARROW = "ts-a-key-bound-to-an-agent", "ts-a-key-that-only-reads", "ts-a-key-with-one-endpoint"
KEYS = [
    {"name": "bound", "token": BOUND, "allowed_agents": ["someone-else"]},
    {"name": "reader", "token": READER, "roles": ["read-only"]},
    {"name": "narrow", "token": NARROW, "allowed_endpoints": ["GET /v1/models"]},
]


def acme(upstream: Upstream) -> dict[str, Any]:
    """Returns the provider, which has the Responses API, unlike one of which nothing is said."""
    return {
        "acme": {"base_url": upstream.base_url, "api_key": "upstream-secret-key", "models": [MODEL], "capabilities": ["responses"]}
    }


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    async with running_over(upstream, providers=acme(upstream)) as started:
        yield started


@dataclass(frozen=True)
class Route:
    """A route and its RPC.

    Attributes:
        path: The route.
        body: What is asked: JSON, or the fields of a form, whose file is added.
        stub: Makes the RPC's stub.
        method: Its name there.
        request: Makes its request, or its requests, of the body.
        file: The field of the form's file; empty for JSON.
        events: What a provider streams; None if the answer is whole.
    """

    path: str
    body: Mapping[str, Any]
    stub: Callable[[grpc.aio.Channel], Any]
    method: str
    request: Callable[[bytes], Any]
    file: str = ""
    events: tuple[Mapping[str, Any] | str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.path}{' streamed' if self.events else ''}"


def carried(message: Any, **fields: Any) -> Callable[[bytes], Any]:
    return lambda body: message(openai_json=body, **fields)


def streamed(message: Any, inner: Any) -> Callable[[bytes], Any]:
    field = message.DESCRIPTOR.fields[0].name
    return lambda body: message(**{field: inner(openai_json=body)})


def form(message: Any, file: str) -> Callable[[bytes], Iterator[Any]]:
    def pieces(body: bytes) -> Iterator[Any]:
        for name, value in json.loads(body).items():
            yield message(piece=forms_pb2.FormPiece(field=forms_pb2.FormField(name=name, value=value)))
        head = forms_pb2.FormFile(name=file, filename="a.bin", content_type="application/octet-stream")
        yield message(piece=forms_pb2.FormPiece(file=head))
        yield message(piece=forms_pb2.FormPiece(content=b"content"))

    return pieces


whole_json = {"accept_openai_json": True}
PROMPT = {"model": MODEL, "prompt": "Hi"}
CREATED = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress", "output": []}}
COMPLETED = {
    "type": "response.completed",
    "sequence_number": 1,
    "response": {"id": "resp_1", "status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 2}},
}
ROUTES = [
    Route(
        "/v1/embeddings",
        {"model": MODEL, "input": "a"},
        EmbeddingsServiceStub,
        "Embed",
        carried(embeddings_pb2.EmbedRequest, **whole_json),
    ),
    Route(
        "/v1/moderations",
        {"model": MODEL, "input": "a"},
        ModerationsServiceStub,
        "Moderate",
        carried(moderations_pb2.ModerateRequest, **whole_json),
    ),
    Route(
        "/v1/rerank",
        {"model": MODEL, "query": "a", "documents": ["b"]},
        RerankServiceStub,
        "Rerank",
        carried(rerank_pb2.RerankRequest, **whole_json),
    ),
    Route(
        "/v1/completions",
        PROMPT,
        CompletionsServiceStub,
        "Complete",
        carried(completions_pb2.CompletionsServiceCompleteRequest, **whole_json),
    ),
    Route(
        "/v1/completions",
        {**PROMPT, "stream": True},
        CompletionsServiceStub,
        "Stream",
        streamed(completions_pb2.CompletionsServiceStreamRequest, completions_pb2.CompletionsServiceCompleteRequest),
        events=({"id": "c", "choices": [{"index": 0, "text": "Hi.", "finish_reason": "stop"}]}, "[DONE]"),
    ),
    Route("/v1/images/generations", PROMPT, ImagesServiceStub, "Generate", carried(images_pb2.GenerateRequest, **whole_json)),
    Route(
        "/v1/images/generations",
        {**PROMPT, "stream": True},
        ImagesServiceStub,
        "GenerateStream",
        streamed(images_pb2.GenerateStreamRequest, images_pb2.GenerateRequest),
        events=(
            {"type": "image_generation.partial_image", "b64_json": "AA", "partial_image_index": 0},
            {"type": "image_generation.completed", "b64_json": "AAAA"},
        ),
    ),
    Route(
        "/v1/responses",
        {"model": MODEL, "input": "Hi"},
        ResponsesServiceStub,
        "Create",
        carried(responses_pb2.ResponsesServiceCreateRequest, **whole_json),
    ),
    Route(
        "/v1/responses",
        {"model": MODEL, "input": "Hi", "stream": True},
        ResponsesServiceStub,
        "Stream",
        streamed(responses_pb2.ResponsesServiceStreamRequest, responses_pb2.ResponsesServiceCreateRequest),
        events=(CREATED, COMPLETED),
    ),
    Route("/v1/audio/speech", {"model": MODEL, "input": "Hi"}, AudioServiceStub, "Speak", carried(audio_pb2.SpeakRequest)),
    Route(
        "/v1/audio/transcriptions",
        {"model": MODEL},
        AudioServiceStub,
        "Transcribe",
        form(audio_pb2.TranscribeRequest, "file"),
        file="file",
    ),
    Route(
        "/v1/audio/translations",
        {"model": MODEL},
        AudioServiceStub,
        "Translate",
        form(audio_pb2.TranslateRequest, "file"),
        file="file",
    ),
    Route("/v1/images/edits", PROMPT, ImagesServiceStub, "Edit", form(images_pb2.EditRequest, "image"), file="image"),
    Route(
        "/v1/images/variations", {"model": MODEL}, ImagesServiceStub, "Vary", form(images_pb2.VaryRequest, "image"), file="image"
    ),
]
BAD: Mapping[str, tuple[Script, str]] = {
    "a refusal": (
        whole({"error": {"message": "No.", "type": "invalid_request_error", "param": "input", "code": "no_way"}}, 400),
        "invalid_request",
    ),
    "a rate limit": (whole({"error": {"message": "Slow down."}}, 429, Retry_After="0.0001"), "rate_limited"),
    "a wrong key": (whole({"error": {"message": "Bad key upstream-secret-key."}}, 401), "auth_failed"),
    "a page": (text("<html>Internal Server Error</html>", 500), "provider_error"),
    "nothing": (lambda http, _request: hung_up(http), "network_error"),
}


async def hung_up(http: Any) -> Any:
    http.transport.abort()
    await asyncio.Event().wait()  # until the server notices


async def over_rest(twinspan: Running, route: Route, token: str | None) -> tuple[Outcome, httpx.Response]:
    if route.file:
        given: dict[str, Any] = {"data": dict(route.body), "files": {route.file: ("a.bin", b"content", "application/octet-stream")}}
    else:
        given = {"json": dict(route.body)}
    request = twinspan.rest.build_request("POST", route.path, **given)
    if token is None:
        del request.headers["Authorization"]
    else:
        request.headers["Authorization"] = f"Bearer {token}"
    answer = await twinspan.rest.send(request)
    outcome = Outcome(
        facts={name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("x-twinspan-")}
    )
    if answer.status_code >= 400:
        said = answer.json()
        outcome.error, outcome.message, outcome.param = said["error_kind"], said["error"]["message"], said["error"]["param"]
    elif answer.headers["Content-Type"].startswith("text/event-stream"):
        events = [line for line in answer.text.split("\n") if line.startswith("data: ")]
        outcome.answer = [json.loads(event.removeprefix("data: ")) for event in events if event != "data: [DONE]"]
    else:
        outcome.answer = [answer.content]
    return outcome, answer


async def over_grpc(twinspan: Running, channel: grpc.aio.Channel, route: Route, token: str | None) -> Outcome:
    outcome = Outcome()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    call = getattr(route.stub(channel), route.method)(route.request(json.dumps(route.body).encode()), metadata=metadata, timeout=5)
    try:
        if route.events is not None:
            async for message in call:
                outcome.answer += [json.loads(event.json) for event in message.events]
        elif route.file:
            outcome.answer = [b"".join([message.piece.content async for message in call])]
        elif route.method == "Speak":
            outcome.answer = [b"".join([message.content async for message in call])]
        else:
            outcome.answer = [(await call).openai_json]
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        outcome.error, outcome.message, outcome.param = failure.kind_name, failure.message, failure.param
        outcome.answer = []
    outcome.facts = {key: value for key, value in await call.trailing_metadata() if key.startswith("x-twinspan-")}
    return outcome


async def ask_everywhere(twinspan: Running, route: Route, token: str | None = TOKEN) -> tuple[Outcome, httpx.Response]:
    """Asks on every surface, makes sure that all of them say the same, and returns that, with the answer over REST."""
    first, answer = await over_rest(twinspan, route, token)
    first.spans = [names(tree) for tree in await twinspan.spans.trees()]
    for channel in (twinspan.inprocess, twinspan.network):
        other = await over_grpc(twinspan, channel, route, token)
        other.spans = [names(tree) for tree in await twinspan.spans.trees()]
        assert other == first
    return first, answer


def counted(metrics: str) -> dict[str, float]:
    """Returns what was counted of requests to the provider."""
    lines = [line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("twinspan_upstream_")]
    return {name: float(value) for name, value in lines if "_total" in name}


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_an_answer_is_the_same_on_every_surface(twinspan: Running, upstream: Upstream, route: Route) -> None:
    upstream.plays(streams(*route.events) if route.events is not None else OTHERS[route.path])
    outcome, answer = await ask_everywhere(twinspan, route)
    assert (outcome.error, answer.status_code) == (None, 200)
    assert outcome.answer
    assert (outcome.facts["x-twinspan-provider"], outcome.facts["x-twinspan-model"]) == ("acme", MODEL)
    assert outcome.facts["x-twinspan-attempts"] == "1"
    assert {request.path for request in upstream.requests} == {route.path}
    assert len({request.raw if not route.file else b"" for request in upstream.requests}) == 1
    metrics = counted((await twinspan.rest.get("/metrics")).text)
    assert {value for name, value in metrics.items() if "requests" in name} == {3.0}
    assert {value for name, value in metrics.items() if "errors" in name} == {0.0}
    assert twinspan.complaints() == []


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_failure_is_the_same_on_every_surface(twinspan: Running, upstream: Upstream, route: Route, bad: str) -> None:
    script, kind = BAD[bad]
    upstream.plays(script)
    outcome, answer = await ask_everywhere(twinspan, route)
    assert outcome.error == kind
    assert "upstream-secret-key" not in answer.text
    assert answer.headers.get("Retry-After") == ("1" if kind == "rate_limited" else None)
    metrics = counted((await twinspan.rest.get("/metrics")).text)
    assert {value for name, value in metrics.items() if "errors" in name} == {3.0}
    assert twinspan.complaints() == []


@pytest.mark.parametrize(
    ("token", "status", "kind"),
    [
        (None, 401, "auth_failed"),
        ("ts-nobody-knows-this", 401, "auth_failed"),
        (BOUND, 403, "permission_denied"),
        (READER, 403, "permission_denied"),
        (NARROW, 403, "permission_denied"),
    ],
)
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_key_that_may_not_gets_nowhere_on_any_surface(
    upstream: Upstream, route: Route, token: str | None, status: int, kind: str
) -> None:
    async with running_over(upstream, providers=acme(upstream), api_keys=KEYS) as twinspan:
        outcome, answer = await ask_everywhere(twinspan, route, token)
    assert (outcome.error, answer.status_code) == (kind, status)
    assert upstream.requests == []


@pytest.mark.parametrize("surface", ["rest", "inprocess", "network"])
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_client_that_leaves_is_gone_at_the_provider_too(
    twinspan: Running, upstream: Upstream, route: Route, surface: str
) -> None:
    upstream.plays(hangs())
    if surface == "rest":
        asking: asyncio.Task[Any] = asyncio.create_task(over_rest(twinspan, route, TOKEN))
    else:
        asking = asyncio.create_task(over_grpc(twinspan, getattr(twinspan, surface), route, TOKEN))
    async with asyncio.timeout(5):
        await upstream.arrived()
        asking.cancel()
        await asyncio.wait((asking,))
        await upstream.requests[0].gone.wait()
        [tree] = await twinspan.spans.trees()
    own = names(tree)
    assert own[1:2] + own[2][2] == ["UNSET", "attempt acme", "UNSET"]  # nobody failed
    inflight = [line for line in (await twinspan.rest.get("/metrics")).text.splitlines() if line.startswith("twinspan_inflight")]
    assert {float(line.rsplit(" ", 1)[1]) for line in inflight} == {0.0}
    assert twinspan.complaints() == []
