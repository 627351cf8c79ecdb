"""Several accounts of one provider: who is asked through which, and what happens when one is refused, on both surfaces."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from twinspan.v1 import admin_pb2, chat_pb2, content_pb2, proxy_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.chat_pb2_grpc import ChatServiceStub
from twinspan.v1.proxy_pb2_grpc import ProxyServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.test_parity import HELLO
from tests.flows.upstream import MODEL, OTHERS, Request, Script, Upstream, by_path, chunk, says, streams, whole
from tests.gateway.telemetry.trees import Node

ACCOUNTS = [{"id": name, "credential": f"secret-of-{name}"} for name in ("one", "two", "three")]
FINE = says("Hello.")
BUSY = whole({"error": {"message": "Slow down, secret-of-two."}}, 429, Retry_After="30")
REFUSED = whole({"error": {"message": "Who are you?"}}, 401)
SPENT = whole({"error": {"message": "Pay.", "code": "insufficient_quota"}}, 429)
FULL = whole({"error": {"message": "Full."}}, 529)
BROKEN = whole({"error": {"message": "Oops."}}, 500)


def through(scripts: Mapping[str, Script], otherwise: Script = FINE) -> Script:
    """Answers each account with a script of its own."""

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await scripts.get(account_of(request), otherwise)(http, request)

    return script


def every_node(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from every_node(child)


def account_of(request: Request) -> str:
    sent = request.headers.get("Authorization", "") + request.headers.get("Cookie", "") + request.headers.get("X-Api-Key", "")
    return sent.rpartition("secret-of-")[2]


def accounts_of(upstream: Upstream) -> list[str]:
    return [account_of(request) for request in upstream.requests]


def sections(upstream: Upstream, accounts: Any = ACCOUNTS, **more: Any) -> dict[str, Any]:
    provider = {"base_url": upstream.base_url, "accounts": accounts, "models": [MODEL, "other"], **more.pop("provider", {})}
    return configuration(upstream.base_url, providers={"acme": provider}, **more)


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    async with running(sections(upstream)) as started:
        yield started


class Asker:
    """Asks for a chat over one surface."""

    def __init__(self, surface: str, twinspan: Running) -> None:
        self.surface, self.twinspan = surface, twinspan

    async def ask(self, model: str = MODEL) -> str:
        """Returns `fine`, or the kind of the error."""
        if self.surface == "rest":
            answer = await self.twinspan.chat({**HELLO, "model": model})
            return "fine" if answer.status_code == 200 else str(answer.json()["error_kind"])
        channel = self.twinspan.inprocess if self.surface == "inprocess" else self.twinspan.network
        chat = chat_pb2.ChatRequest(model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
        asked = ChatServiceStub(channel).Complete(chat_pb2.CompleteRequest(chat=chat), metadata=self.twinspan.metadata, timeout=5)
        try:
            await asked
        except grpc.aio.AioRpcError as error:
            return errors.of_rpc(error).kind_name
        return "fine"


@pytest.fixture(params=["rest", "inprocess", "network"])
def asker(request: pytest.FixtureRequest, twinspan: Running) -> Asker:
    return Asker(request.param, twinspan)


async def state(twinspan: Running) -> list[tuple[str, str, str, str]]:
    rows = (await twinspan.rest.get("/statsz")).json().get("accounts", [])
    return [(row["account"], row.get("model", ""), row["state"], row.get("last_error", "")) for row in rows]


async def metrics(twinspan: Running) -> list[str]:
    text = (await twinspan.rest.get("/metrics")).text
    return sorted(line for line in text.splitlines() if line.startswith("twinspan_account_selection_total{"))


async def test_accounts_take_turns_for_each_model_by_itself(asker: Asker, upstream: Upstream) -> None:
    for model in (MODEL, MODEL, "other", MODEL, "other", MODEL):
        assert await asker.ask(model) == "fine"
    assert accounts_of(upstream) == ["one", "two", "one", "three", "two", "one"]


@pytest.mark.parametrize("refusal", [BUSY, REFUSED, SPENT, FULL], ids=["rate", "auth", "quota", "capacity"])
async def test_what_an_account_is_refused_another_is_asked_and_the_first_then_rests(
    asker: Asker, upstream: Upstream, refusal: Script
) -> None:
    upstream.plays(through({"one": refusal}))
    assert [await asker.ask() for _ in range(4)] == ["fine"] * 4
    assert accounts_of(upstream) == ["one", "two", "three", "two", "three"]


@pytest.mark.parametrize(("refusal", "fault"), [(REFUSED, "auth"), (SPENT, "quota")])
async def test_an_account_that_is_not_let_in_or_is_spent_rests_for_all_models(
    twinspan: Running, upstream: Upstream, refusal: Script, fault: str
) -> None:
    upstream.plays(through({"one": refusal}))
    asker = Asker("rest", twinspan)
    assert [await asker.ask(MODEL), await asker.ask("other")] == ["fine", "fine"]
    assert accounts_of(upstream) == ["one", "two", "two"]
    assert await state(twinspan) == [("one", "", "resting", fault), ("two", "", "ready", ""), ("three", "", "ready", "")]


@pytest.mark.parametrize(("refusal", "fault"), [(BUSY, "rate"), (FULL, "capacity")])
async def test_an_account_that_asked_too_fast_or_found_no_room_rests_for_the_model(
    twinspan: Running, upstream: Upstream, refusal: Script, fault: str
) -> None:
    upstream.plays(through({"one": refusal}))
    asker = Asker("rest", twinspan)
    await asker.ask(MODEL)
    upstream.plays(FINE)
    await asker.ask("other")
    assert accounts_of(upstream) == ["one", "two", "one"]
    rows = [row for row in await state(twinspan) if row[0] == "one"]
    assert rows == [("one", "", "ready", ""), ("one", MODEL, "resting", fault)]


async def test_a_failure_of_the_provider_itself_is_not_tried_with_another_account(asker: Asker, upstream: Upstream) -> None:
    upstream.plays(BROKEN)
    assert await asker.ask() == "provider_error"
    assert accounts_of(upstream) == ["one"]


async def test_a_mistake_of_the_request_blames_no_account(asker: Asker, upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "No such parameter."}}, 400))
    assert await asker.ask() == "invalid_request"
    assert accounts_of(upstream) == ["one"]
    assert {row[2] for row in await state(asker.twinspan)} == {"ready"}


async def test_when_all_accounts_are_refused_the_error_names_each_and_shows_no_credential(
    twinspan: Running, upstream: Upstream
) -> None:
    upstream.plays(through({"one": SPENT, "two": BUSY, "three": REFUSED}))
    answer = await twinspan.chat(HELLO)
    assert (answer.status_code, answer.json()["error_kind"]) == (429, "rate_limited")
    message = answer.json()["error"]["message"]
    for part in ("one: quota_exhausted (Pay.)", "two: rate_limited (Slow down, [REDACTED].)", "three: auth_failed (Who are you?)"):
        assert part in message
    assert (answer.headers["X-Twinspan-Attempts"], answer.headers["Retry-After"]) == ("3", "30")
    assert "secret-of" not in answer.text


@pytest.mark.parametrize(
    ("refusal", "kind", "status", "least_seconds"),
    [(BUSY, "rate_limited", 429, 20), (SPENT, "quota_exhausted", 429, 50), (REFUSED, "auth_failed", 401, 100)],
)
async def test_while_all_accounts_rest_nobody_is_asked_and_the_error_says_when_again(
    asker: Asker, upstream: Upstream, refusal: Script, kind: str, status: int, least_seconds: int
) -> None:
    upstream.plays(refusal)
    assert await asker.ask() == kind
    upstream.requests.clear()
    upstream.plays(FINE)
    assert await asker.ask() == kind
    answer = await asker.twinspan.chat(HELLO)
    assert (answer.status_code, answer.json()["error_kind"]) == (status, kind)
    assert int(answer.headers["Retry-After"]) >= least_seconds
    assert upstream.requests == []
    assert 'twinspan_account_selection_total{account="",provider="acme",result="unavailable"} 2.0' in await metrics(asker.twinspan)


async def test_if_the_wait_is_short_the_account_that_is_free_first_is_waited_for(asker: Asker, upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "Slow down."}}, 429, Retry_After_Ms="20"))
    assert await asker.ask() == "rate_limited"
    upstream.plays(FINE)
    assert await asker.ask() == "fine"


async def test_an_agent_passes_over_a_target_whose_accounts_all_rest(upstream: Upstream) -> None:
    async with Upstream() as second:
        more = {"spare": {"base_url": second.base_url, "api_key": "k", "models": ["spare-1"]}}
        configured = sections(upstream, agents={"smart": {"models": [MODEL, "spare-1"], "failure_threshold": 1}})
        configured["providers"] |= more
        async with running(configured) as twinspan:
            upstream.plays(BUSY)
            answer = await twinspan.chat({**HELLO, "model": "smart"})
            assert (answer.headers["X-Twinspan-Provider"], answer.headers["X-Twinspan-Attempts"]) == ("spare", "4")
            answer = await twinspan.chat({**HELLO, "model": "smart"})
            assert (answer.headers["X-Twinspan-Provider"], answer.headers["X-Twinspan-Attempts"]) == ("spare", "1")
            assert (await twinspan.rest.get("/statsz")).json().get("cooldowns", []) == []


async def test_one_refused_account_does_not_have_the_agents_target_cool_down(upstream: Upstream) -> None:
    upstream.plays(through({"one": BUSY}))
    configured = sections(upstream, agents={"smart": {"models": [MODEL, "other"], "failure_threshold": 1}})
    async with running(configured) as twinspan:
        for _ in range(3):
            assert (await twinspan.chat({**HELLO, "model": "smart"})).headers["X-Twinspan-Model"] == MODEL


async def test_each_account_has_an_attempt_a_span_and_a_count_of_its_own(asker: Asker, upstream: Upstream) -> None:
    upstream.plays(through({"one": BUSY}))
    assert await asker.ask() == "fine"
    (root,) = await asker.twinspan.spans.trees()
    asked = [
        (node.attributes["twinspan.account"], node.attributes["twinspan.attempt"], node.attributes.get("twinspan.retry_reason"))
        for node in every_node(root)
        if "twinspan.account" in node.attributes
    ]
    assert asked == [("one", 1, None), ("two", 2, "rate_limited")]
    assert await metrics(asker.twinspan) == [
        'twinspan_account_selection_total{account="one",provider="acme",result="rate"} 1.0',
        'twinspan_account_selection_total{account="two",provider="acme",result="ok"} 1.0',
    ]


async def test_a_stream_goes_to_the_next_account_before_its_first_event_and_never_after(
    twinspan: Running, upstream: Upstream
) -> None:
    late = streams(chunk({"content": "Hel"}), {"error": {"message": "Too fast.", "code": 429}})
    early = streams({"error": {"message": "Too fast.", "code": 429}})
    upstream.plays(through({"one": early, "two": late}))
    answer = await twinspan.chat({**HELLO, "stream": True})
    assert accounts_of(upstream) == ["one", "two"]
    assert "Hel" in answer.text
    assert "rate_limited" in answer.text
    resting = [row[0] for row in await state(twinspan) if row[2] == "resting"]
    assert resting == ["one", "two"]


@pytest.mark.parametrize(
    ("account", "style", "header", "value"),
    [
        ({"type": "apikey", "credential": "secret-of-x"}, "anthropic", "X-Api-Key", "secret-of-x"),
        ({"type": "oauth", "credential": "secret-of-x"}, "anthropic", "Authorization", "Bearer secret-of-x"),
        ({"type": "cookie", "credential": "a=1; b=secret-of-x"}, "bearer", "Cookie", "a=1; b=secret-of-x"),
    ],
    ids=["apikey", "oauth", "cookie"],
)
@pytest.mark.parametrize("alone", [True, False], ids=["the only account", "one of two"])
async def test_each_kind_of_credential_is_sent_in_its_own_way(
    upstream: Upstream, account: dict[str, str], style: str, header: str, value: str, alone: bool
) -> None:
    accounts = [{"id": "x", **account}] + ([] if alone else [{"id": "y", "credential": "other"}])
    async with running(sections(upstream, accounts, provider={"auth_style": style})) as twinspan:
        assert (await twinspan.chat(HELLO)).status_code == 200
    sent = {name.lower(): text for name, text in upstream.requests[0].headers.items()}
    assert sent[header.lower()] == value
    assert len({"authorization", "cookie", "x-api-key"} & sent.keys()) == 1


OTHER_WAYS: dict[str, Any] = {
    "/v1/embeddings": {"json": {"model": MODEL, "input": "Hi"}},
    "/v1/moderations": {"json": {"model": MODEL, "input": "Hi"}},
    "/v1/completions": {"json": {"model": MODEL, "prompt": "Hi"}},
    "/v1/responses": {"json": {"model": MODEL, "input": "Hi"}},
    "/v1/rerank": {"json": {"model": MODEL, "query": "Hi", "documents": ["a"]}},
    "/v1/images/generations": {"json": {"model": MODEL, "prompt": "Hi"}},
    "/v1/audio/speech": {"json": {"model": MODEL, "input": "Hi", "voice": "alloy"}},
    "/v1/audio/transcriptions": {"data": {"model": MODEL}, "files": {"file": ("a.wav", b"RIFF")}},
    "/proxy/acme/v1/moderations": {"json": {"input": "Hi"}},
}


@pytest.mark.parametrize("path", OTHER_WAYS)
async def test_whatever_is_asked_goes_through_the_account_whose_turn_it_is(upstream: Upstream, path: str) -> None:
    capabilities = ["responses", "audio", "images", "embeddings", "moderations", "completions", "rerank"]
    upstream.plays(by_path(OTHERS))
    async with running(sections(upstream, provider={"capabilities": capabilities})) as twinspan:
        for _ in range(3):
            answer = await twinspan.rest.post(path, **OTHER_WAYS[path])
            assert answer.status_code == 200, answer.text
    assert accounts_of(upstream) == ["one", "two", "three"]


@pytest.mark.parametrize("refusal", [REFUSED, BUSY, FULL], ids=["auth", "rate", "capacity"])
async def test_what_is_made_once_is_asked_of_another_account_where_the_first_was_not_let_in(
    upstream: Upstream, refusal: Script
) -> None:
    upstream.plays(through({"one": refusal}, by_path(OTHERS)))
    async with running(sections(upstream)) as twinspan:
        answer = await twinspan.rest.post("/v1/images/generations", json={"model": MODEL, "prompt": "Hi"})
    assert answer.status_code == 200, answer.text
    assert accounts_of(upstream) == ["one", "two"]


async def test_a_form_that_was_sent_is_not_sent_to_another_account_but_the_next_one_is(upstream: Upstream) -> None:
    upstream.plays(through({"one": REFUSED}, by_path(OTHERS)))
    path = "/v1/audio/transcriptions"
    async with running(sections(upstream)) as twinspan:
        statuses = [(await twinspan.rest.post(path, **OTHER_WAYS[path])).status_code for _ in range(2)]
    assert statuses == [401, 200]
    assert accounts_of(upstream) == ["one", "two"]


async def test_what_is_forwarded_over_grpc_takes_turns_too_and_rests_an_account(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(through({"one": whole({}, 429, Retry_After="60")}))
    statuses = []
    for channel in (twinspan.inprocess, twinspan.network, twinspan.inprocess, twinspan.network):
        head = proxy_pb2.ForwardRequestHead(method="GET", path="/v1/things", provider="acme", content_length=0)
        requests = iter([proxy_pb2.ForwardRequest(head=head)])
        call: Any = ProxyServiceStub(channel).Forward(requests, metadata=twinspan.metadata, timeout=5)
        statuses += [response.head.status async for response in call if response.WhichOneof("part") == "head"]
    assert statuses == [429, 200, 200, 200]
    assert accounts_of(upstream) == ["one", "two", "three", "two"]


async def test_a_route_that_the_credential_may_not_use_locks_no_account(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole({}, 403))
    for _ in range(4):
        assert (await twinspan.rest.get("/proxy/acme/v1/organization")).status_code == 403
    assert accounts_of(upstream) == ["one", "two", "three", "one"]


async def test_a_response_is_got_and_gone_on_from_through_the_account_that_made_it(upstream: Upstream) -> None:
    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        made = {"id": f"resp-{len(upstream.requests)}", "object": "response", "status": "completed", "model": MODEL, "output": []}
        return await whole(made)(http, request)

    upstream.plays(script)
    async with running(sections(upstream, provider={"capabilities": ["responses"]})) as twinspan:
        asked = {"model": MODEL, "input": "Hi"}
        await twinspan.rest.post("/v1/responses", json=asked)
        second = (await twinspan.rest.post("/v1/responses", json=asked)).json()["id"]
        assert (await twinspan.rest.get(f"/v1/responses/{second}")).status_code == 200
        again = await twinspan.rest.post("/v1/responses", json={**asked, "previous_response_id": second})
        assert again.status_code == 200, again.text
        await twinspan.rest.delete(f"/v1/responses/{second}")
    assert accounts_of(upstream) == ["one", "two", "two", "two", "two"]


async def test_what_was_held_against_an_account_outlives_the_gateway_and_no_credential_is_written(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.plays(through({"one": SPENT}))
    async with running(sections(upstream)) as twinspan:
        await twinspan.chat(HELLO)
    written = (tmp_path / "state" / "twinspan" / "accounts.json").read_text()
    assert "secret-of" not in written
    ((model, fault, until, level),) = json.loads(written)["accounts"]["acme"]["one"]
    assert (model, fault, level) == ("", "quota", 1)
    assert until > 1_700_000_000
    async with running(sections(upstream)) as twinspan:
        assert ("one", "", "resting", "quota") in await state(twinspan)
        await twinspan.chat(HELLO)
    assert accounts_of(upstream) == ["one", "two", "two"]


async def test_the_state_of_accounts_is_the_same_over_grpc(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(through({"one": REFUSED}))
    await twinspan.chat(HELLO)
    for channel in (twinspan.inprocess, twinspan.network):
        stats = await AdminServiceStub(channel).GetStats(admin_pb2.GetStatsRequest(), metadata=twinspan.metadata, timeout=5)
        first, *others = stats.accounts
        assert (first.provider, first.account, first.state, first.last_error) == ("acme", "one", "resting", "auth")
        assert 0 < first.remaining_seconds <= 126
        assert [(row.account, row.state) for row in others] == [("two", "ready"), ("three", "ready")]


async def test_nothing_is_kept_where_each_provider_has_one_credential(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(REFUSED)
    async with running(configuration(upstream.base_url)) as twinspan:
        assert (await twinspan.chat(HELLO)).status_code == 401
        assert await state(twinspan) == []
    assert not (tmp_path / "state" / "twinspan" / "accounts.json").exists()
