"""Answers that hold embeddings, whatever they hold and however they are cut."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import embeddings_pb2

from gateway.operations import vectors
from gateway.operations.vectors import Encoding

NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8)


def answer(embeddings: list[list[float]], first: int = 0) -> bytes:
    data = [{"object": "embedding", "index": first + number, "embedding": one} for number, one in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": len(data), "details": {"x": 1}}}).encode()


def embeddings_of(body: bytes) -> list[Any]:
    return [item["embedding"] for item in json.loads(body)["data"]]


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_what_is_turned_to_base64_and_back_is_what_it_was(embeddings: list[list[float]]) -> None:
    there = vectors.joined([vectors.read(answer(embeddings))], "base64")
    assert all(isinstance(one, str) for one in embeddings_of(there))
    assert embeddings_of(vectors.joined([vectors.read(there)], "float")) == embeddings


@given(st.lists(st.lists(NUMBERS, max_size=3), min_size=2, max_size=4), st.sampled_from(["float", "base64"]))
def test_parts_make_what_the_whole_would_have_been(parts: list[list[list[float]]], wanted: Encoding) -> None:
    whole = [one for part in parts for one in part]
    found = vectors.joined([vectors.read(answer(part)) for part in parts], wanted)
    expected = json.loads(vectors.joined([vectors.read(answer(whole))], wanted))
    assert json.loads(found) == {**expected, "usage": {"prompt_tokens": len(whole), "details": {"x": 1}}}

    typed = embeddings_pb2.EmbedResponse()
    vectors.fill(typed, [vectors.read(found)])
    assert [list(item.embedding) for item in typed.data] == whole
    assert [item.index for item in typed.data] == list(range(len(whole)))


def test_an_answer_with_nothing_but_its_data_stays_json() -> None:
    part = vectors.read(b'{"data":[{"embedding":[1]}]}')
    assert json.loads(vectors.joined([part, part], "base64")) == {
        "data": [{"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": "AACAPw=="}]
    }


def test_numbers_that_32_bits_do_not_hold_come_close() -> None:
    there = vectors.joined([vectors.read(answer([[0.1, 1e-50]]))], "base64")
    (found,) = embeddings_of(vectors.joined([vectors.read(there)], "float"))
    assert math.isclose(found[0], 0.1, rel_tol=1e-7)
    assert found[1] == 0


@pytest.mark.parametrize("numbers", [0, 1, 31, 32, 4095, 4096, 6000])
def test_vectors_of_any_length_reach_typed_callers(numbers: int) -> None:
    vector = [float(place) for place in range(numbers)]
    typed = embeddings_pb2.EmbedResponse()
    vectors.fill(typed, [vectors.read(vectors.joined([vectors.read(answer([vector]))], "base64"))])
    assert list(typed.data[0].embedding) == vector


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"data":null}', b'{"data":[1]}', b'{"data":[{}]}', b'{"data":[{"embedding":"\xff"}]}']
)
def test_what_holds_no_embeddings_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        vectors.read(body)
