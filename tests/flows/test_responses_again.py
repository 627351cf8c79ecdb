"""Responses that were made before: got again, gone on from, listed, cancelled, deleted; the gateway's own and a provider's.

The provider that has the Responses API is another gateway here, which writes its responses itself, over a chat.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from openai import AsyncOpenAI
from twinspan.v1 import responses_pb2
from twinspan.v1.responses_pb2_grpc import ResponsesServiceStub

from bridge import errors
from gateway.backends.ledger import Ledger
from gateway.responses.kept import Kept, KeptResponses
from tests.flows.commands import configure
from tests.flows.running import TOKEN, Running, configuration, running
from tests.flows.test_files_on_disk import gateway as started_gateway
from tests.flows.test_files_on_disk import kill
from tests.flows.upstream import MODEL, Upstream, says, streams, text, whole
from tests.waiting import until

ANN, BEN, BOUND = "ts-the-key-of-ann-0001", "ts-the-key-of-ben-0001", "ts-a-key-bound-to-an-agent"
KEYS = [
    {"name": "ann", "token": ANN},
    {"name": "ben", "token": BEN},
    {"name": "bound", "token": BOUND, "allowed_agents": ["helper"]},
    {"name": "reader", "token": "ts-a-key-that-only-reads", "roles": ["read-only"]},
]
FAR = "ts-the-key-of-the-gateway"
WHO = ("own", "provider")


def over_chat(upstream: Upstream, directory: Path, **more: Any) -> dict[str, Any]:
    return configuration(upstream.base_url, files={"dir": str(directory)}, api_keys=KEYS, **more)


def over_responses(base_url: str, directory: Path) -> dict[str, Any]:
    remote = {"base_url": base_url, "api_key": FAR, "models": [MODEL], "capabilities": ["responses"]}
    other = {"base_url": base_url, "api_key": FAR, "models": ["other", "both"], "capabilities": ["responses"]}
    agents = {"helper": {"strategy": "round-robin", "models": ["other", MODEL]}}
    sections = {"providers": {"remote": remote, "other": other}, "agents": agents, "files": {"dir": str(directory)}}
    return configuration(base_url, api_keys=KEYS, **sections)


@asynccontextmanager
async def gateways(upstream: Upstream, directory: Path) -> AsyncIterator[dict[str, Running]]:
    """Runs a gateway that writes responses itself, and one before it for which that is a provider."""
    async with AsyncExitStack() as stack:
        tree = over_chat(upstream, directory / "own")
        tree["api_keys"] = [*KEYS, {"name": "far", "token": FAR}]
        own = await stack.enter_async_context(running(tree))
        near = await stack.enter_async_context(running(over_responses(f"{own.url}/v1", directory / "near")))
        yield {"own": own, "provider": near}


@pytest.fixture
async def both(upstream: Upstream, tmp_path: Path) -> AsyncIterator[dict[str, Running]]:
    async with gateways(upstream, tmp_path) as started:
        yield started
        assert [complaint for twinspan in started.values() for complaint in twinspan.complaints()] == []


async def made(sdk: AsyncOpenAI, **fields: Any) -> openai.types.responses.Response:
    answer: openai.types.responses.Response = await sdk.responses.create(**{"model": MODEL, "input": "Hi", **fields})
    return answer


async def events_of(sdk: AsyncOpenAI, **fields: Any) -> list[Any]:
    return [event async for event in await sdk.responses.create(**{"model": MODEL, "input": "Hi", "stream": True, **fields})]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_the_sdk_gets_lists_and_deletes_a_response(
    both: dict[str, Running], upstream: Upstream, who: str, streamed: bool
) -> None:
    upstream.plays(says("Hello."))
    async with both[who].openai(ANN) as sdk:
        answer = (await events_of(sdk))[-1].response if streamed else await made(sdk)
        assert await sdk.responses.retrieve(answer.id) == answer
        items = await sdk.responses.input_items.list(answer.id)
        assert [item.to_dict()["content"][0]["text"] for item in items.data] == ["Hi"]  # type: ignore[index]  # a message
        await sdk.responses.delete(answer.id)
        for ask in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await ask(answer.id)
        with pytest.raises(openai.BadRequestError) as raised:
            await made(sdk, previous_response_id=answer.id)
        assert (raised.value.param, raised.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("who", WHO)
async def test_a_conversation_goes_on_from_response_to_response(both: dict[str, Running], upstream: Upstream, who: str) -> None:
    async with both[who].openai(ANN) as sdk:
        upstream.plays(says("One."))
        first = await made(sdk, input="Count.", instructions="Be short.")
        upstream.plays(says("Two."))
        second = (await events_of(sdk, input="On.", previous_response_id=first.id))[-1].response
        upstream.plays(says("Three."))
        third = await made(sdk, input="On.", previous_response_id=second.id)
        assert third.previous_response_id == second.id
    said = [(message["role"], message["content"]) for message in upstream.requests[-1].body["messages"]]
    assert [role for role, _ in said] == ["user", "assistant", "user", "assistant", "user"]  # instructions do not go on
    assert "One." in json.dumps(said[1])
    assert "Two." in json.dumps(said[3])


@pytest.mark.parametrize("who", WHO)
async def test_a_tool_that_was_called_is_answered_in_the_next_request(
    both: dict[str, Running], upstream: Upstream, who: str
) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    upstream.plays(
        whole({"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [called]}, "finish_reason": "tool_calls"}]})
    )
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
    async with both[who].openai(ANN) as sdk:
        first = await made(sdk, tools=[tool])
        upstream.plays(says("It rains."))
        output = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
        second = await made(sdk, input=[output], previous_response_id=first.id, tools=[tool])
    assert second.output_text == "It rains."
    roles = [message["role"] for message in upstream.requests[-1].body["messages"]]
    assert roles == ["user", "assistant", "tool"]


@pytest.mark.parametrize("who", WHO)
async def test_a_response_is_its_keys_and_an_administrators(both: dict[str, Running], upstream: Upstream, who: str) -> None:
    upstream.plays(says("Hello."))
    twinspan = both[who]
    async with twinspan.openai(ANN) as ann, twinspan.openai(BEN) as ben, twinspan.openai() as admin:
        answer = await made(ann)
        asked = len(upstream.requests)
        for ask in (ben.responses.retrieve, ben.responses.delete, ben.responses.cancel, ben.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await ask(answer.id)
        with pytest.raises(openai.BadRequestError) as raised:
            await made(ben, previous_response_id=answer.id)
        assert raised.value.code == "previous_response_not_found"
        assert len(upstream.requests) == asked
        assert (await admin.responses.retrieve(answer.id)).id == answer.id
    async with twinspan.openai("ts-a-key-that-only-reads") as reader:
        with pytest.raises(openai.PermissionDeniedError):
            await reader.responses.delete(answer.id)


@pytest.mark.parametrize("who", WHO)
async def test_what_is_not_to_be_stored_is_not(both: dict[str, Running], upstream: Upstream, who: str) -> None:
    upstream.plays(says("Hello."))
    async with both[who].openai(ANN) as sdk:
        for answer in (await made(sdk, store=False), (await events_of(sdk, store=False))[-1].response):
            assert answer.to_dict()["store"] is False
            with pytest.raises(openai.NotFoundError):
                await sdk.responses.retrieve(answer.id)


@pytest.mark.parametrize("who", WHO)
async def test_responses_outlive_the_process(upstream: Upstream, tmp_path: Path, who: str) -> None:
    upstream.plays(says("Hello."))
    async with gateways(upstream, tmp_path) as started, started[who].openai(ANN) as sdk:
        answer = await made(sdk)
    async with gateways(upstream, tmp_path) as started, started[who].openai(ANN) as sdk:
        assert (await sdk.responses.retrieve(answer.id)).output_text == "Hello."
        assert (await made(sdk, previous_response_id=answer.id)).output_text == "Hello."


async def test_a_request_goes_to_the_provider_that_made_what_it_goes_on_from(both: dict[str, Running], upstream: Upstream) -> None:
    """The agent's turns would go to another provider each time."""
    upstream.plays(says("Hello."))
    async with both["provider"].openai(ANN) as sdk:
        raw = await sdk.responses.with_raw_response.create(model=MODEL, input="Hi")
        first = raw.parse()
        for _ in range(4):
            raw = await sdk.responses.with_raw_response.create(model="helper", input="On.", previous_response_id=first.id)
            assert raw.headers["X-Twinspan-Provider"] == "remote"
        with pytest.raises(openai.BadRequestError) as raised:
            await made(sdk, model="both", previous_response_id=first.id)
        assert raised.value.param == "model"


async def test_a_key_that_is_bound_to_an_agent_goes_on_through_it_alone(both: dict[str, Running], upstream: Upstream) -> None:
    upstream.plays(says("Hello."))
    async with both["provider"].openai(BOUND) as sdk:
        first = await made(sdk, model="helper")
        with pytest.raises(openai.PermissionDeniedError):
            await made(sdk, previous_response_id=first.id)


async def test_a_client_that_leaves_in_the_middle_finds_a_providers_response_again(upstream: Upstream, tmp_path: Path) -> None:
    created = {
        "type": "response.created",
        "sequence_number": 0,
        "response": {"id": "resp_1", "status": "in_progress", "output": []},
    }
    upstream.plays(streams(created, asyncio.Event()))
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        stream = await sdk.responses.create(model=MODEL, input="Hi", stream=True)
        assert (await anext(stream)).type == "response.created"
        await stream.close()
        async with asyncio.timeout(5):
            await upstream.requests[0].gone.wait()
        upstream.plays(whole({"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "x_new": 1}))
        again = await twinspan.rest.get("/v1/responses/resp_1?include[]=a&include[]=b", headers={"Authorization": f"Bearer {ANN}"})
        assert again.json()["x_new"] == 1
        assert upstream.requests[-1].path == "/v1/responses/resp_1"


async def test_a_providers_events_are_got_again_as_they_are(upstream: Upstream, tmp_path: Path) -> None:
    answer = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "created_at": 1, "model": MODEL}
    completed = {"type": "response.completed", "sequence_number": 4, "response": answer}
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        upstream.plays(whole(answer))
        await made(sdk)
        upstream.plays(streams(completed))
        stream = await sdk.responses.retrieve("resp_1", stream=True, starting_after=3)
        assert [event.sequence_number async for event in stream] == [4]
        stub = ResponsesServiceStub(twinspan.network)
        request = responses_pb2.ResponsesServiceGetStreamRequest(id="resp_1", starting_after=3)
        messages = [message async for message in stub.GetStream(request, metadata=twinspan.metadata, timeout=5)]
        assert [json.loads(event.json) for message in messages for event in message.events] == [completed]
        upstream.plays(whole({**answer, "status": "cancelled"}))
        assert (await sdk.responses.cancel("resp_1")).status == "cancelled"
        assert upstream.requests[-1].path == "/v1/responses/resp_1/cancel"


async def test_a_providers_error_comes_back_as_it_is_and_what_it_lost_is_nobodys(upstream: Upstream, tmp_path: Path) -> None:
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        upstream.plays(whole({"id": "resp_1", "object": "response", "status": "completed", "output": []}))
        await made(sdk)
        upstream.plays(text("<html>", 500))
        with pytest.raises(openai.InternalServerError):
            await sdk.responses.retrieve("resp_1")
        upstream.plays(whole({"error": {"message": "No such response.", "type": "invalid_request_error", "code": "gone"}}, 404))
        with pytest.raises(openai.NotFoundError) as raised:
            await sdk.responses.retrieve("resp_1")
        assert raised.value.code == "gone"
        asked = len(upstream.requests)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve("resp_1")
        assert len(upstream.requests) == asked


async def test_events_that_break_off_are_no_clean_end(upstream: Upstream, tmp_path: Path) -> None:
    answer = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        upstream.plays(whole(answer))
        await made(sdk)
        upstream.plays(streams({"type": "response.output_text.delta", "sequence_number": 3, "delta": "a"}))
        headers = {"Authorization": f"Bearer {ANN}"}
        replay = await twinspan.rest.get("/v1/responses/resp_1?stream=true", headers=headers)
        assert "event: error" in replay.text
        upstream.plays(whole(answer))
        replay = await twinspan.rest.get("/v1/responses/resp_1?stream=true", headers=headers)
        assert (replay.status_code, replay.json()["error_kind"]) == (502, "network_error")
        assert (await twinspan.rest.get("/v1/responses/resp_1?stream=maybe", headers=headers)).json()["error"]["param"] == "stream"


async def test_a_provider_that_cannot_list_or_cancel_loses_nothing(upstream: Upstream, tmp_path: Path) -> None:
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        upstream.plays(whole({"id": "resp_1", "object": "response", "status": "completed", "output": []}))
        await made(sdk)
        upstream.plays(whole({"error": {"message": "No such route."}}, 404))
        for ask in (sdk.responses.input_items.list, sdk.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                await ask("resp_1")
        upstream.plays(whole({"id": "resp_1", "object": "response", "status": "completed", "output": []}))
        assert (await sdk.responses.retrieve("resp_1")).id == "resp_1"


async def test_a_conversation_whose_beginning_was_deleted_cannot_go_on(both: dict[str, Running], upstream: Upstream) -> None:
    upstream.plays(says("Hello."))
    async with both["own"].openai(ANN) as sdk:
        first = await made(sdk)
        second = await made(sdk, previous_response_id=first.id)
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.BadRequestError) as raised:
            await made(sdk, previous_response_id=second.id)
        assert first.id in str(raised.value)


async def test_a_provider_that_is_configured_no_more_is_said_to_be_so(upstream: Upstream, tmp_path: Path) -> None:
    async with running(over_responses(upstream.base_url, tmp_path)) as twinspan, twinspan.openai(ANN) as sdk:
        upstream.plays(whole({"id": "resp_1", "object": "response", "status": "completed", "output": []}))
        await made(sdk)
    async with running(over_chat(upstream, tmp_path)) as twinspan:
        answer = await twinspan.rest.get("/v1/responses/resp_1")
        assert (answer.status_code, answer.json()["error_kind"]) == (503, "not_configured")
        assert "'remote'" in answer.json()["error"]["message"]


async def test_responses_expire(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    entries = Ledger(tmp_path)
    kept = KeptResponses(entries, clock=lambda: now)
    await kept.keep("resp_1", "ann", "acme", Kept("m"))
    now += 30 * 86_400 - 1
    assert await kept.find("resp_1", "ann") is not None
    now += 1
    assert await kept.find("resp_1", "ann") is None
    await kept.keep("resp_2", "ann", "acme", Kept("m"))
    assert [entry.id for entry in (await entries.list("response", "acme", None, limit=10))[0]] == ["resp_2"]
    await entries.close()


async def test_a_killed_gateway_finds_every_response_again_whose_answer_it_gave(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(says("Hello."))
    configure(tmp_path, upstream.base_url, files={"dir": "files"})
    answered: list[str] = []
    for _ in range(2):
        async with (
            started_gateway(tmp_path) as (process, url),
            AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as sdk,
        ):

            async def ask_on_and_on(sdk: AsyncOpenAI = sdk) -> None:
                while True:
                    try:
                        answered.append((await made(sdk)).id)
                    except openai.APIConnectionError:
                        return

            asking = [asyncio.create_task(ask_on_and_on()) for _ in range(4)]
            await until(partial(has_grown, answered, len(answered) + 20), seconds=20)
            await kill(process)
            await asyncio.gather(*asking)
    async with started_gateway(tmp_path) as (_, url), AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN) as sdk:
        for id_ in answered:
            assert (await sdk.responses.retrieve(id_)).output_text == "Hello."


def has_grown(answered: Sequence[str], to: int) -> bool:
    return len(answered) >= to


async def test_the_gateways_own_cannot_be_cancelled_or_streamed_again(both: dict[str, Running], upstream: Upstream) -> None:
    upstream.plays(says("Hello."))
    async with both["own"].openai(ANN) as sdk:
        answer = await made(sdk)
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.cancel(answer.id)
        with pytest.raises(openai.BadRequestError) as raised:
            await sdk.responses.retrieve(answer.id, stream=True)
        assert raised.value.param == "stream"


async def test_items_come_in_pages(both: dict[str, Running], upstream: Upstream) -> None:
    upstream.plays(says("Hello."))
    async with both["own"].openai(ANN) as sdk:
        answer = await made(sdk, input=[{"role": "user", "content": str(number)} for number in range(5)])
        listed = sdk.responses.input_items.list(answer.id, limit=2, order="asc")
        ordered = [item.to_dict()["content"][0]["text"] async for item in listed]  # type: ignore[index]  # messages
        assert ordered == ["0", "1", "2", "3", "4"]
        newest = await sdk.responses.input_items.list(answer.id, limit=1)
        assert newest.data[0].to_dict()["content"][0]["text"] == "4"  # type: ignore[index]  # a message
        for bad, param in (
            ({"limit": 0}, "limit"),
            ({"limit": 101}, "limit"),
            ({"order": "up"}, "order"),
            ({"after": "x"}, "after"),
        ):
            with pytest.raises(openai.BadRequestError) as raised:
                await sdk.responses.input_items.list(answer.id, **bad)
            assert raised.value.param == param


@pytest.mark.parametrize("who", WHO)
async def test_every_surface_gets_the_same(both: dict[str, Running], upstream: Upstream, who: str) -> None:
    upstream.plays(says("Hello."))
    twinspan = both[who]
    async with twinspan.openai() as sdk:
        answer = await made(sdk)
    for channel in (twinspan.inprocess, twinspan.network):
        stub: Any = ResponsesServiceStub(channel)
        keys: dict[str, Any] = {"metadata": twinspan.metadata, "timeout": 5}
        request = responses_pb2.ResponsesServiceGetRequest(id=answer.id, accept_openai_json=True)
        carried = (await stub.Get(request, **keys)).response.openai_json
        assert carried == (await twinspan.rest.get(f"/v1/responses/{answer.id}")).content
        typed = (await stub.Get(responses_pb2.ResponsesServiceGetRequest(id=answer.id), **keys)).response
        assert (typed.id, typed.status, typed.usage.output_tokens) == (answer.id, "completed", 3)
        listing = responses_pb2.ResponsesServiceListInputItemsRequest(id=answer.id)
        page = json.loads((await stub.ListInputItems(listing, **keys)).page)
        assert page == (await twinspan.rest.get(f"/v1/responses/{answer.id}/input_items")).json()
        go_on = responses_pb2.ResponsesServiceCreateRequest(model=MODEL, input='"On."', previous_response_id=answer.id)
        assert json.loads((await stub.Create(go_on, **keys)).extra["previous_response_id"]) == answer.id
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Delete(responses_pb2.ResponsesServiceDeleteRequest(id="resp_none"), **keys)
        failure = errors.of_rpc(raised.value)
        said = (await twinspan.rest.delete("/v1/responses/resp_none")).json()
        assert (failure.kind_name, failure.message) == (said["error_kind"], said["error"]["message"])


async def test_a_response_that_cannot_be_kept_is_answered_all_the_same(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(says("Hello."))
    (tmp_path / "file").write_text("no directory")
    async with running(over_chat(upstream, tmp_path / "file/below")) as twinspan, twinspan.openai(ANN) as sdk:
        assert (await made(sdk)).output_text == "Hello."
        with pytest.raises(openai.InternalServerError) as raised:
            await sdk.responses.retrieve("resp_1")
        assert raised.value.response.status_code == 503
        assert twinspan.complaints() != []
