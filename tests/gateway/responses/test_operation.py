"""What the operation tells whoever keeps answers, and how it goes on from earlier ones: over a real exchange and provider."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from msgspec import Raw
from opentelemetry.trace import NoOpTracerProvider
from twinspan.v1 import responses_pb2

from gateway.access.keys import Principal
from gateway.compilation import compile_catalogue
from gateway.config.schema import Config
from gateway.config.snapshot import Snapshot
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.governance import Governance
from gateway.operations.json_operation import Kind
from gateway.providers.sender import Sender
from gateway.responses.operation import Answered, ItemIdentifiers, Past, StreamedResponse, WholeResponse
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import Span, Tracing
from tests.flows.upstream import Script, Upstream, chunk, says, streams, text, whole
from tests.gateway.responses.openai_types import checked_item, checked_response


class _Shape(msgspec.Struct):
    model: str
    input: str | list[dict[str, Raw]]


KIND = Kind("generate_content", "responses", "/responses", _Shape, ends=frozenset({"response.completed", "response.failed"}))
NATIVE: dict[str, Any] = {"id": "resp_n", "object": "response", "status": "completed", "output": [], "usage": None}
PAST = Past("resp_0", [orjson.dumps({"type": "message", "id": "msg_0", "role": "user", "content": "First."})])


@dataclass
class Asker:
    """Whoever asks."""

    trusted: bool = False
    principal: Principal | None = None
    counts: Any = None
    span: Span = field(default_factory=lambda: Span(None, ()))
    answer: dict[str, str] = field(default_factory=dict)

    def require(self, model: str) -> None:
        """Lets everybody ask for everything."""

    def override(self, name: str) -> str:
        return ""

    def remaining_seconds(self) -> float | None:
        return 5.0


async def _nobody_listens(_answers: bool) -> None:
    """Is told whether the store answers."""


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as started:
        yield started


@pytest.fixture
async def exchange(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Exchange]:
    """Runs an exchange over the model `n`, whose provider has the Responses API, and `p`, whose provider has chat."""
    providers = {
        "native": {"base_url": upstream.base_url, "models": ["n"], "capabilities": ["stream_options", "responses"]},
        "plain": {"base_url": upstream.base_url, "models": ["p"]},
    }
    catalogue = compile_catalogue(Snapshot(Config.model_validate({"providers": providers})), None, "twinspan/test")
    sender, recorder = Sender(), Recorder()
    await sender.start()
    governance = Governance(
        Config, recorder, sender, _nobody_listens, state_url=None, budgets=tmp_path / "budgets", accounts=tmp_path / "accounts.json"
    )
    yield Exchange(lambda: catalogue, sender, recorder, Tracing(NoOpTracerProvider()), governance)
    await governance.close()
    await sender.close()


async def asked(exchange: Exchange, model: str, *, stream: bool, past: Past | None = None, **fields: Any) -> Answered | None:
    """Asks, reads the answer to its end, however it ends, and returns what the operation tells of it."""
    body = json.dumps({"model": model, "input": "Hi", **fields}).encode()
    request = responses_pb2.ResponsesServiceCreateRequest(openai_json=body)
    caller: Any = Asker(counts=Recorder().call("/m"))
    new_id = ItemIdentifiers().new
    if not stream:
        whole_operation = WholeResponse(KIND, request, new_id, past, clock=lambda: 100.5)
        assert whole_operation.answered() is None
        with await exchange.open(whole_operation, caller):
            pass
        return whole_operation.answered()
    operation = StreamedResponse(KIND, request, new_id, past, clock=lambda: 100.5)
    try:
        with await exchange.open(operation, caller) as answer:
            while await answer.next():
                pass
    except GatewayError:
        pass
    return operation.answered()


def native_script(*, stream: bool) -> Script:
    return streams({"type": "response.completed", "sequence_number": 0, "response": NATIVE}) if stream else whole(NATIVE)


async def test_the_gateways_own_answer_is_told_whole_with_its_input(exchange: Exchange, upstream: Upstream) -> None:
    for stream in (False, True):
        upstream.plays(says("Hel", "lo"))
        answered = await asked(exchange, "p", stream=stream)
        assert answered is not None
        response = checked_response(answered.response)
        assert (response["status"], response["created_at"], response["completed_at"]) == ("completed", 100, 100)
        assert [part["text"] for part in response["output"][0]["content"]] == ["Hello"]
        assert [checked_item(item)["content"] for item in answered.input_items] == [[{"type": "input_text", "text": "Hi"}]]
        assert (answered.native, answered.target.model) == (False, "p")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_answer_is_told_as_it_came(exchange: Exchange, upstream: Upstream, stream: bool) -> None:
    upstream.plays(native_script(stream=stream))
    answered = await asked(exchange, "n", stream=stream)
    assert answered is not None
    assert (json.loads(answered.response), answered.native, answered.target.provider.name) == (NATIVE, True, "native")
    assert len(answered.input_items) == 1


async def test_an_answer_that_broke_off_is_told_as_failed(exchange: Exchange, upstream: Upstream) -> None:
    upstream.plays(streams(chunk({"content": "Hel"}), ConnectionError()))
    answered = await asked(exchange, "p", stream=True)
    assert answered is not None
    response = checked_response(answered.response)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")


async def test_without_an_answer_there_is_nothing_to_tell(exchange: Exchange, upstream: Upstream) -> None:
    upstream.plays(text("{}", 400, "application/json"))
    assert await asked(exchange, "p", stream=True) is None
    assert await asked(exchange, "n", stream=True) is None


async def test_history_reaches_either_kind_of_provider(exchange: Exchange, upstream: Upstream) -> None:
    upstream.plays(says("Yes."), native_script(stream=False))
    answered = await asked(exchange, "p", stream=False, past=PAST, previous_response_id="resp_0")
    await asked(exchange, "n", stream=False, past=PAST, previous_response_id="resp_0")
    assert answered is not None
    assert json.loads(answered.response)["previous_response_id"] == "resp_0"
    assert len(answered.input_items) == 1
    user = [{"role": "user", "content": said} for said in ("First.", "Hi")]
    assert upstream.requests[0].body["messages"] == user
    assert upstream.requests[1].body == {"model": "n", "input": [{"type": "message", **user[0]}, user[1]]}
