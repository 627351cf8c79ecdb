"""Embeddings over both surfaces: formats of numbers, typed messages, batches that are split, and what goes wrong."""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest
from aiohttp import web
from twinspan.v1 import content_pb2, embeddings_pb2
from twinspan.v1.embeddings_pb2_grpc import EmbeddingsServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.test_parity import Outcome, names
from tests.flows.upstream import MODEL, Request, Script, Upstream, hangs, text, whole


def vector(one: str | int | Sequence[int]) -> list[float]:
    """A vector that tells its input, of numbers that 32 bits hold."""
    values = one.encode() if isinstance(one, str) else [one] if isinstance(one, int) else one
    return [len(values), sum(values), 0.5]


def encoded(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def decoded(text: str) -> list[float]:
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def inputs_of(body: Mapping[str, Any]) -> list[Any]:
    given = body["input"]
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def embeds(encoding: str | None = None, *, backwards: bool = False, most: int = 10**6, **fields: Any) -> Script:
    """Answers with a vector for each input, in the format that is asked for or else in this one; `most` inputs at a time."""

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        inputs = inputs_of(request.body)
        if len(inputs) > most:
            return await whole({"error": {"message": f"At most {most} inputs."}}, 400)(http, request)
        form = encoding or request.body.get("encoding_format", "float")
        data = [
            {"object": "embedding", "index": number, "embedding": vector(one) if form == "float" else encoded(vector(one))}
            for number, one in enumerate(inputs)
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        answer = {"object": "list", "data": data[::-1] if backwards else data, "model": "embed-1", "usage": usage, **fields}
        return await whole(answer)(http, request)

    return script


def fails_for(word: str, failure: Script, **options: Any) -> Script:
    """Embeds, but fails where a text is among the inputs."""

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await (failure if word in inputs_of(request.body) else embeds(**options))(http, request)

    return script


def limited(upstream: Upstream, most: int, **sections: Any) -> dict[str, Any]:
    """A configuration whose one provider takes so many inputs at once."""
    acme = {"base_url": upstream.base_url, "api_key": "k", "models": [MODEL], "max_embedding_inputs": most}
    return configuration(upstream.base_url, providers={"acme": acme}, **sections)


@pytest.mark.parametrize("answered", [None, "float", "base64"], ids=["as asked", "in numbers", "in base64"])
@pytest.mark.parametrize("asked", [None, "float", "base64"])
async def test_the_official_sdk_gets_vectors_in_whatever_form_they_come(
    twinspan: Running, upstream: Upstream, asked: Any, answered: str | None
) -> None:
    upstream.plays(embeds(answered))
    async with twinspan.openai() as client:
        options = {} if asked is None else {"encoding_format": asked}
        answer = await client.embeddings.create(model=MODEL, input=["one", "three"], **options)
    assert [item.index for item in answer.data] == [0, 1]
    found = [decoded(item.embedding) if isinstance(item.embedding, str) else item.embedding for item in answer.data]
    assert found == [vector("one"), vector("three")]
    assert isinstance(answer.data[0].embedding, str) is (asked == "base64")
    assert (answer.model, answer.usage.prompt_tokens) == ("embed-1", 2)
    assert upstream.requests[0].path == "/v1/embeddings"
    assert upstream.requests[0].body["encoding_format"] == (asked or "base64")
    assert twinspan.complaints() == []


@pytest.mark.parametrize(
    "given", ["a text", ["a", "b"], [1, 2, 3], [[1, 2], [3]], [""]], ids=["a text", "texts", "tokens", "lists of tokens", "empty"]
)
async def test_every_kind_of_input_reaches_the_provider_as_it_is(twinspan: Running, upstream: Upstream, given: Any) -> None:
    upstream.plays(embeds())
    sent = {"model": MODEL, "input": given, "dimensions": 3, "user": "u", "x_new": {"deep": [1.5, None]}}
    answer = await twinspan.rest.post("/v1/embeddings", json=sent)
    assert [item["embedding"] for item in answer.json()["data"]] == [vector(one) for one in inputs_of(sent)]
    assert upstream.requests[0].body == sent
    assert (answer.headers["X-Twinspan-Provider"], answer.headers["X-Twinspan-Model"]) == ("acme", MODEL)


@pytest.mark.parametrize("channel", ["network", "inprocess"])
@pytest.mark.parametrize("answered", ["float", "base64"])
async def test_a_stub_gets_numbers(twinspan: Running, upstream: Upstream, channel: str, answered: str) -> None:
    upstream.plays(embeds(answered, x_new={"deep": [1.5]}, usage={"prompt_tokens": 7, "total_tokens": 7}))
    request = embeddings_pb2.EmbedRequest(
        model=MODEL, input=["one", "three"], encoding_format="base64", dimensions=3, user="u", extra={"x_request": "[1]"}
    )
    call = EmbeddingsServiceStub(getattr(twinspan, channel)).Embed(request, metadata=twinspan.metadata, timeout=5)
    assert await call == embeddings_pb2.EmbedResponse(
        model="embed-1",
        data=[
            embeddings_pb2.Embedding(index=0, embedding=vector("one")),
            embeddings_pb2.Embedding(index=1, embedding=vector("three")),
        ],
        usage=content_pb2.Usage(input_tokens=7, total_tokens=7),
        extra={"x_new": '{"deep": [1.5]}'},
    )
    assert dict(await call.trailing_metadata())["x-twinspan-provider"] == "acme"
    assert upstream.requests[0].body == {
        "model": MODEL,
        "input": ["one", "three"],
        "encoding_format": "base64",
        "dimensions": 3,
        "user": "u",
        "x_request": [1],
    }


async def test_a_stub_may_send_tokens(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(embeds())
    tokens = [embeddings_pb2.TokenList(tokens=[1, 2]), embeddings_pb2.TokenList(tokens=[3])]
    request = embeddings_pb2.EmbedRequest(model=MODEL, input_tokens=tokens)
    answer = await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    assert [list(item.embedding) for item in answer.data] == [vector([1, 2]), vector([3])]
    assert upstream.requests[0].body == {"model": MODEL, "input": [[1, 2], [3]]}


async def test_the_bytes_of_an_answer_come_as_they_are_if_nothing_has_to_be_changed(twinspan: Running, upstream: Upstream) -> None:
    said = '{ "data":[ {"embedding":[1.50, -2e-3 ],"index":0}],"x":"é" }'
    upstream.plays(text(said, content_type="application/json"))
    answer = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": "a"})
    assert answer.text == said


async def test_a_batch_is_split_and_put_together_again_in_order(upstream: Upstream) -> None:
    given = [f"text {number}" * (number % 3 + 1) for number in range(25)]
    upstream.plays(embeds(backwards=True, most=4, x_new=1))
    async with running(limited(upstream, 4)) as twinspan:
        answer = (await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": given})).json()
        request = embeddings_pb2.EmbedRequest(model=MODEL, input=given)
        typed = await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    assert [(item["index"], item["embedding"]) for item in answer["data"]] == list(enumerate(map(vector, given)))
    assert {name: value for name, value in answer.items() if name != "data"} == {
        "object": "list",
        "model": "embed-1",
        "usage": {"prompt_tokens": 25, "total_tokens": 25},
        "x_new": 1,
    }
    assert [(item.index, list(item.embedding)) for item in typed.data] == list(enumerate(map(vector, given)))
    assert typed.usage == content_pb2.Usage(input_tokens=25, total_tokens=25)
    pieces = [request.body["input"] for request in upstream.requests]
    assert sorted(map(len, pieces)) == [1, 1, *[4] * 12]
    assert sorted(one for piece in pieces for one in piece) == sorted(given * 2)


async def test_answers_of_megabytes_are_put_together_too(upstream: Upstream) -> None:
    given = list("abcdef")
    upstream.plays(embeds("base64", x_large="x" * 1_000_000))
    async with running(limited(upstream, 2)) as twinspan:
        answer = (await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": given})).json()
        request = embeddings_pb2.EmbedRequest(model=MODEL, input=given)
        typed = await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    assert [item["embedding"] for item in answer["data"]] == [vector(one) for one in given]
    assert [list(item.embedding) for item in typed.data] == [vector(one) for one in given]
    assert len(answer["x_large"]) + 2 == len(typed.extra["x_large"])


async def test_lists_of_tokens_are_split_and_a_list_of_tokens_is_not(upstream: Upstream) -> None:
    upstream.plays(embeds("base64"))
    async with running(limited(upstream, 2)) as twinspan:
        many = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": [[1], [2, 2], [3]]})
        one = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": [1, 2, 3, 4, 5]})
    assert [item["embedding"] for item in many.json()["data"]] == [vector([1]), vector([2, 2]), vector([3])]
    assert [item["embedding"] for item in one.json()["data"]] == [vector([1, 2, 3, 4, 5])]
    assert len(upstream.requests) == 3


async def test_only_a_few_pieces_are_asked_for_at_once(upstream: Upstream) -> None:
    under_way, most = 0, 0

    async def counting(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await upstream.arrived(4)
        answer = await embeds()(http, request)
        under_way -= 1
        return answer

    upstream.plays(counting)
    async with running(limited(upstream, 1)) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": list("abcdefghij")})
    assert [item["embedding"] for item in answer.json()["data"]] == [vector(one) for one in "abcdefghij"]
    assert most == 4


async def test_a_piece_that_fails_fails_the_request_and_ends_the_others(upstream: Upstream) -> None:
    async def fails(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        await upstream.arrived(2)
        return await whole({"error": {"message": "No such text."}}, 400)(http, request)

    upstream.plays(fails_for("b", fails))

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await (fails if request.body["input"] == ["b"] else hangs())(http, request)

    upstream.plays(script)
    async with running(limited(upstream, 1)) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": ["a", "b"]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "No such text.")
        assert answer.headers["X-Twinspan-Attempts"] == "1"
        (hanging,) = [request for request in upstream.requests if request.body["input"] == ["a"]]
        await hanging.gone.wait()
        assert twinspan.complaints() == []


async def test_a_batch_moves_to_the_next_target_as_a_whole(upstream: Upstream) -> None:
    given = list("abcde")
    async with Upstream() as other:
        upstream.plays(fails_for("e", text("", 500)))
        other.plays(embeds(most=3))
        providers = {
            "one": {"base_url": upstream.base_url, "models": ["m1"], "max_embedding_inputs": 2},
            "two": {"base_url": other.base_url, "models": ["m2"], "max_embedding_inputs": 3},
        }
        sections = configuration(upstream.base_url, providers=providers, agents={"embedder": {"models": ["m1", "m2"]}})
        async with running(sections) as twinspan:
            answer = await twinspan.rest.post("/v1/embeddings", json={"model": "embedder", "input": given})
            (tree,) = await twinspan.spans.trees()
            metrics = (await twinspan.rest.get("/metrics")).text.splitlines()
        assert (answer.headers["X-Twinspan-Provider"], answer.headers["X-Twinspan-Attempts"]) == ("two", "2")
        assert [item["embedding"] for item in answer.json()["data"]] == [vector(one) for one in given]
        assert answer.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
        assert sorted(len(request.body["input"]) for request in other.requests) == [2, 3]
        assert 'twinspan_tokens_total{agent="embedder",direction="input",model="m2",provider="two"} 5.0' in metrics
        # What the first target has answered before it failed has been consumed, too.
        assert 'twinspan_tokens_total{agent="embedder",direction="input",model="m1",provider="one"} 4.0' in metrics
        while tree.name != "embeddings embedder":
            (tree,) = tree.children
        first, second = tree.children
        assert tree.attributes["gen_ai.usage.input_tokens"] == 5
        assert [span.attributes["twinspan.pieces"] for span in (first, second)] == [3, 2]
        assert [span.status for span in (first, second)] == ["ERROR", "UNSET"]


async def test_a_batch_is_retried_as_a_whole(upstream: Upstream) -> None:
    given, failed = list("abcde"), False

    async def fails_once(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        nonlocal failed
        if request.body["input"] == ["e"] and not failed:
            failed = True
            await upstream.arrived(3)
            return await whole({"error": {"message": "Slow down."}}, 429, Retry_After="0")(http, request)
        return await embeds()(http, request)

    upstream.plays(fails_once)
    agents = {"embedder": {"models": [MODEL], "max_retries": 1}}
    async with running(limited(upstream, 2, agents=agents)) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json={"model": "embedder", "input": given})
    assert [item["embedding"] for item in answer.json()["data"]] == [vector(one) for one in given]
    assert answer.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert answer.headers["X-Twinspan-Attempts"] == "2"
    assert len(upstream.requests) == 6


async def test_the_time_of_a_request_is_that_of_all_its_pieces(upstream: Upstream) -> None:
    async def slow_at_the_end(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await (hangs() if request.body["input"] == ["f"] else embeds())(http, request)

    upstream.plays(slow_at_the_end)
    async with running(limited(upstream, 1, governance={"upstream_timeout_seconds": 1})) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": list("abcdef")})
    assert (answer.status_code, answer.json()["error_kind"]) == (504, "provider_timeout")
    assert len(upstream.requests) == 6
    (hanging,) = [request for request in upstream.requests if request.body["input"] == ["f"]]
    await hanging.gone.wait()


@pytest.mark.parametrize("limit", [None, 96], ids=["configured", "built in"])
async def test_a_providers_limit_is_configured_or_built_in(upstream: Upstream, limit: int | None) -> None:
    upstream.plays(embeds())
    cohere: dict[str, Any] = {"base_url": upstream.base_url, "api_key": "k", "models": [MODEL]}
    if limit is None:
        cohere["max_embedding_inputs"] = 200
    async with running(configuration(upstream.base_url, providers={"cohere": cohere})) as twinspan:
        await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": ["a"] * 200})
    assert sorted(len(request.body["input"]) for request in upstream.requests) == ([200] if limit is None else [8, 96, 96])


ONE = {"model": MODEL, "input": "a"}
CASES: list[tuple[str, dict[str, Any], Script]] = [
    ("a text", ONE, embeds()),
    ("base64", {**ONE, "encoding_format": "base64", "dimensions": 3}, embeds()),
    ("base64 that was not asked for", {**ONE, "encoding_format": "float"}, embeds("base64")),
    ("numbers that were not asked for", {**ONE, "encoding_format": "base64"}, embeds("float")),
    ("a batch that is split", {"model": MODEL, "input": list("abcdefg")}, embeds(backwards=True, most=2)),
    (
        "a piece that is refused",
        {"model": MODEL, "input": list("abcdefg")},
        fails_for("c", whole({"error": {"message": "No."}}, 429)),
    ),
    ("an unknown model", {"model": "nobody", "input": "a"}, embeds()),
    ("a page", ONE, text("<html>")),
]


async def over_rest(twinspan: Running, body: dict[str, Any]) -> Outcome:
    answer = await twinspan.rest.post("/v1/embeddings", json=body)
    said = answer.json()
    outcome = Outcome(facts={name: value for name, value in answer.headers.items() if name.startswith("x-twinspan-")})
    if "error" in said:
        outcome.error, outcome.message, outcome.param = said["error_kind"], said["error"]["message"], said["error"]["param"]
        return outcome
    numbers = [decoded(item["embedding"]) if isinstance(item["embedding"], str) else item["embedding"] for item in said["data"]]
    outcome.answer = [said["model"], [item["index"] for item in said["data"]], numbers, said["usage"]["prompt_tokens"]]
    return outcome


async def over_grpc(twinspan: Running, channel: grpc.aio.Channel, body: dict[str, Any]) -> Outcome:
    given = body["input"]
    request = embeddings_pb2.EmbedRequest(**{**body, "input": [given] if isinstance(given, str) else given})
    call: Any = EmbeddingsServiceStub(channel).Embed(request, metadata=twinspan.metadata, timeout=5)
    outcome = Outcome()
    try:
        said = await call
        numbers = [list(item.embedding) for item in said.data]
        outcome.answer = [said.model, [item.index for item in said.data], numbers, said.usage.input_tokens]
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        outcome.error, outcome.message, outcome.param = failure.kind_name, failure.message, failure.param
    outcome.facts = {key: value for key, value in await call.trailing_metadata() if key.startswith("x-twinspan-")}
    return outcome


@pytest.mark.parametrize(("body", "script"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_embeddings_are_the_same_on_every_surface(upstream: Upstream, body: dict[str, Any], script: Script) -> None:
    outcomes = []
    async with running(limited(upstream, 2)) as twinspan:
        for surface in (None, twinspan.inprocess, twinspan.network):
            upstream.plays(script)
            outcome = await (over_rest(twinspan, body) if surface is None else over_grpc(twinspan, surface, body))
            outcome.spans = [names(tree) for tree in await twinspan.spans.trees()]
            outcome.facts = {name.lower(): value for name, value in outcome.facts.items()}
            outcomes.append(outcome)
        assert twinspan.complaints() == []
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0].answer or outcomes[0].error
    assert outcomes[0].spans


@pytest.mark.parametrize(
    ("body", "status", "kind", "param"),
    [
        (b"", 400, "invalid_request", None),
        (b"[1]", 400, "invalid_request", None),
        (b'{"model":"m","input":"\xff"}', 400, "invalid_request", None),
        ({"input": "a"}, 400, "invalid_request", "model"),
        ({"model": "", "input": "a"}, 400, "invalid_request", "model"),
        ({"model": None, "input": "a"}, 400, "invalid_request", "model"),
        ({"model": MODEL}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": None}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": 7}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": []}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": {"a": 1}}, 400, "invalid_request", "input"),
        ({"model": MODEL, "input": ["a", 7]}, 400, "invalid_request", "input[1]"),
        ({"model": MODEL, "input": ["a", None]}, 400, "invalid_request", "input[1]"),
        ({"model": MODEL, "input": [1, [2]]}, 400, "invalid_request", "input[1]"),
        ({"model": MODEL, "input": [[1], []]}, 400, "invalid_request", "input[1]"),
        ({"model": MODEL, "input": [[1, "a"]]}, 400, "invalid_request", "input[0][1]"),
        ({"model": MODEL, "input": [-1]}, 400, "invalid_request", "input[0]"),
        ({"model": MODEL, "input": [1.5]}, 400, "invalid_request", "input[0]"),
        ({"model": MODEL, "input": [True]}, 400, "invalid_request", "input[0]"),
        ({"model": MODEL, "input": [10**30]}, 400, "invalid_request", "input[0]"),
        ({"model": MODEL, "input": "a", "encoding_format": "int8"}, 400, "invalid_request", "encoding_format"),
        ({"model": MODEL, "input": "a", "encoding_format": 8}, 400, "invalid_request", "encoding_format"),
        ({"model": MODEL, "input": "a", "dimensions": 0}, 400, "invalid_request", "dimensions"),
        ({"model": MODEL, "input": "a", "dimensions": "3"}, 400, "invalid_request", "dimensions"),
        ({"model": MODEL, "input": "a", "user": 7}, 400, "invalid_request", "user"),
        ({"model": "m" * 257, "input": "a"}, 400, "invalid_request", "model"),
        ({"model": "nobody", "input": "a"}, 404, "model_not_found", "model"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_has_the_same_answer_on_both_surfaces(
    twinspan: Running, upstream: Upstream, body: Any, status: int, kind: str, param: str | None
) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await twinspan.rest.post("/v1/embeddings", content=sent)
    said = answer.json()
    assert (answer.status_code, said["error_kind"], said["error"]["param"]) == (status, kind, param)
    request = embeddings_pb2.EmbedRequest(openai_json=sent)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    failure = errors.of_rpc(raised.value)
    assert (failure.kind_name, failure.param, failure.message) == (kind, param, said["error"]["message"])
    assert upstream.requests == []
    assert twinspan.complaints() == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ["a"], "input_tokens": [embeddings_pb2.TokenList(tokens=[1])]}, "input_tokens"),
        ({"input_tokens": [embeddings_pb2.TokenList()]}, "input[0]"),
        ({"input": ["a"], "dimensions": -1}, "dimensions"),
        ({"input": ["a"], "extra": {"x": '1,"model":"another"'}}, "extra.x"),
    ],
    ids=["none", "both", "an empty list of tokens", "less than nothing", "no JSON"],
)
async def test_a_typed_request_that_cannot_be_sent_is_refused(
    twinspan: Running, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    request = embeddings_pb2.EmbedRequest(model=MODEL, **fields)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await EmbeddingsServiceStub(twinspan.network).Embed(request, metadata=twinspan.metadata, timeout=5)
    assert errors.of_rpc(raised.value).param == param
    assert upstream.requests == []


def says(data: Any, **fields: Any) -> Script:
    return whole({"data": data, **fields})


@pytest.mark.parametrize(
    ("encoding_format", "script", "kind"),
    [
        ("float", whole({"error": {"message": "No."}}, 400), "invalid_request"),
        ("float", text("<html>", 500), "provider_error"),
        ("float", text("<html>"), "provider_error"),
        ("float", text("[" * 100_000, content_type="application/json"), "provider_error"),
        ("float", says(None), "provider_error"),
        ("float", says([{"index": 0}]), "provider_error"),
        ("float", says([{"embedding": "!!!"}]), "provider_error"),
        ("float", says([{"embedding": base64.b64encode(b"12345").decode()}]), "provider_error"),
        ("base64", says([{"embedding": {"a": 1}}]), "provider_error"),
        ("base64", says([{"embedding": [1, "a"]}]), "provider_error"),
    ],
    ids=["refused", "its own trouble", "a page", "no end", "no list", "no vector", "no base64", "odd", "an object", "no numbers"],
)
async def test_a_providers_fault_is_a_clear_error(
    twinspan: Running, upstream: Upstream, encoding_format: str, script: Script, kind: str
) -> None:
    upstream.plays(script)
    answer = await twinspan.rest.post("/v1/embeddings", json={**ONE, "encoding_format": encoding_format})
    assert answer.json()["error_kind"] == kind
    assert twinspan.complaints() == []


async def test_too_few_vectors_for_a_piece_are_no_answer(upstream: Upstream) -> None:
    upstream.plays(says([{"embedding": [1.0]}]))
    async with running(limited(upstream, 2)) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json={"model": MODEL, "input": ["a", "b", "c"]})
    assert (answer.status_code, answer.json()["error_kind"]) == (502, "provider_error")
    assert "1 embeddings for 2 inputs" in answer.json()["error"]["message"]


async def test_a_client_that_leaves_ends_every_piece(upstream: Upstream) -> None:
    upstream.plays(hangs())
    async with running(limited(upstream, 1)) as twinspan:
        request = embeddings_pb2.EmbedRequest(model=MODEL, input=["a", "b"])
        call: Any = EmbeddingsServiceStub(twinspan.inprocess).Embed(request, metadata=twinspan.metadata, timeout=5)
        await upstream.arrived(2)
        call.cancel()
        for asked in upstream.requests:
            await asked.gone.wait()


async def test_a_key_that_may_not_use_the_model_is_refused(upstream: Upstream) -> None:
    token = "ts-a-key-with-one-agent"
    keys = [{"name": "k", "token": token, "roles": ["user"], "allowed_agents": ["another"]}]
    async with running(configuration(upstream.base_url, api_keys=keys)) as twinspan:
        answer = await twinspan.rest.post("/v1/embeddings", json=ONE, headers={"Authorization": f"Bearer {token}"})
        nobody = await twinspan.rest.post("/v1/embeddings", json=ONE, headers={"Authorization": "Bearer ts-nobody-knows-this"})
    assert (answer.status_code, answer.json()["error_kind"]) == (403, "permission_denied")
    assert (nobody.status_code, nobody.json()["error_kind"]) == (401, "auth_failed")
    assert upstream.requests == []
