"""GET /v1/models as the official SDKs of OpenAI and Anthropic read it, and in pages."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from twinspan.v1 import models_pb2
from twinspan.v1.models_pb2_grpc import ModelsServiceStub

from tests.flows.running import TOKEN, Running, configuration, running
from tests.flows.upstream import Upstream

NAMES = [f"lab/model-{number}" for number in range(7)]
INFO = {"context_window": 200_000, "max_tokens": 64_000, "input_cost_per_1m": 3, "output_cost_per_1m": 15}


@pytest.fixture
async def seven(upstream: Upstream) -> AsyncIterator[Running]:
    acme = {"base_url": upstream.base_url, "models": NAMES, "model_info": {NAMES[0]: INFO}}
    async with running(configuration(upstream.base_url, providers={"acme": acme})) as started:
        yield started


@pytest.fixture
async def claude(seven: Running) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=seven.url, api_key=TOKEN, max_retries=0, timeout=5) as client:
        yield client


async def test_the_openai_sdk_reads_the_list_and_one_model_with_slashes(seven: Running) -> None:
    async with seven.openai() as client:
        assert [model.id async for model in client.models.list()] == NAMES
        model = await client.models.retrieve(NAMES[0])
    extra = model.model_extra or {}
    assert extra["source"] == "configured"
    assert (model.owned_by, extra["context_window"], extra["max_tokens"]) == ("acme", 200_000, 64_000)
    assert (extra["input_cost_per_1m"], extra["output_cost_per_1m"], extra["cached_input_cost_per_1m"]) == (3.0, 15.0, None)


async def test_the_anthropic_sdk_reads_the_list_whole_and_in_pages(claude: AsyncAnthropic) -> None:
    whole = await claude.models.list()
    assert ([model.id for model in whole.data], whole.has_more) == (NAMES, False)
    assert (whole.first_id, whole.last_id) == (NAMES[0], NAMES[-1])
    assert [model.id async for model in claude.models.list(limit=3)] == NAMES
    first = whole.data[0]
    assert (first.type, first.display_name, first.max_input_tokens, first.max_tokens) == ("model", NAMES[0], 200_000, 64_000)
    assert first.created_at.year == 1970, "what Anthropic says where a release is not known"


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({"limit": 2}, NAMES[:2], True),
        ({"limit": 7}, NAMES, False),
        ({"after_id": NAMES[4]}, NAMES[5:], False),
        ({"after_id": NAMES[1], "limit": 2}, NAMES[2:4], True),
        ({"before_id": NAMES[5], "limit": 2}, NAMES[3:5], True),
        ({"before_id": NAMES[2], "limit": 2}, NAMES[:2], False),
        ({"before_id": NAMES[0]}, [], False),
    ],
)
async def test_pages_go_on_after_a_model_or_end_before_it(
    seven: Running, claude: AsyncAnthropic, query: dict[str, Any], names: list[str], more: bool
) -> None:
    page = await claude.models.list(**query)
    assert ([model.id for model in page.data], page.has_more) == (names, more)
    typed = models_pb2.ModelsServiceListRequest(
        page_size=query.get("limit", 0), after_id=query.get("after_id", ""), before_id=query.get("before_id", "")
    )
    for channel in (seven.network, seven.inprocess):
        response = await ModelsServiceStub(channel).List(typed, metadata=seven.metadata, timeout=5)
        assert ([model.id for model in response.models], response.has_more) == (names, more)


@pytest.mark.parametrize("query", [{"after_id": "nobody"}, {"before_id": "nobody"}, {"after_id": NAMES[0], "before_id": NAMES[1]}])
async def test_a_page_that_cannot_be_is_a_mistake_of_the_clients(claude: AsyncAnthropic, query: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError, match="_id'"):
        await claude.models.list(**query)


async def test_the_anthropic_sdk_retrieves_one_model(claude: AsyncAnthropic) -> None:
    assert (await claude.models.retrieve(NAMES[0])).id == NAMES[0]
    with pytest.raises(anthropic.NotFoundError):
        await claude.models.retrieve("nobody")


async def test_the_openai_sdk_is_not_given_pages_by_a_limit(seven: Running) -> None:
    answer = await seven.rest.get("/v1/models", params={"limit": 2})
    assert [model["id"] for model in answer.json()["data"]] == NAMES


async def test_an_empty_list_is_a_list(upstream: Upstream) -> None:
    async with running(configuration(upstream.base_url, providers={"acme": {"base_url": upstream.base_url}})) as twinspan:
        assert (await twinspan.rest.get("/v1/models")).json() == {"object": "list", "data": []}
        answer = await twinspan.rest.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
        assert answer.json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}
