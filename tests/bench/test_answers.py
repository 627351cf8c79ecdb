import base64
import json
import struct

import pytest

from bench import answers, behaviour, workloads
from bench.load import SMALL_REQUEST_BYTES, embedding_body, small_body


def test_an_answer_in_one_piece_is_a_kilobyte_of_a_chat_completion() -> None:
    body = answers.unary()

    assert len(body) == 1024
    assert json.loads(body)["choices"][0]["message"]["content"] == answers.unary_text()


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_stream_has_the_chunks_that_are_asked_for_each_of_about_250_bytes(with_usage: bool) -> None:
    events = answers.events(100, with_usage=with_usage)
    said = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]

    assert events[-1] == b"data: [DONE]\n\n"
    assert [chunk["choices"][0]["delta"]["content"] for chunk in said[1:101]] == answers.pieces(100)
    assert len(said) == 102 + with_usage
    sizes = [len(event) for event in events[1:101]]
    assert 220 <= min(sizes) <= max(sizes) <= 270


@pytest.mark.parametrize("workload", [workload for workload in workloads.ALL if workload.kind == "small"], ids=str)
def test_a_small_request_is_200_bytes_of_json(workload: workloads.Workload) -> None:
    body = small_body(workload.model, stream=workload.chunks > 0)

    assert len(body) == SMALL_REQUEST_BYTES == 200
    assert json.loads(body)["model"] == workload.model


@pytest.mark.parametrize("workload", [workload for workload in workloads.ALL if workload.kind == "embedding"], ids=str)
def test_a_small_embedding_is_asked_for_in_200_bytes_and_comes_as_1536_numbers(workload: workloads.Workload) -> None:
    body = embedding_body(workload.model)
    answer = json.loads(answers.embedding())

    assert len(body) == SMALL_REQUEST_BYTES
    assert json.loads(body)["model"] == workload.model == behaviour.EMBEDDING
    assert len(struct.unpack("<1536f", base64.b64decode(answer["data"][0]["embedding"]))) == answers.DIMENSIONS


@pytest.mark.parametrize("workload", [workload for workload in workloads.ALL if workload.chunks], ids=str)
def test_a_streaming_models_name_says_how_it_streams(workload: workloads.Workload) -> None:
    named = behaviour.behaviour_of(workload.model)

    assert named is not None
    assert named.model == workload.model
    assert named.chunks == workload.chunks == 100


def test_what_came_in_chunks_is_put_together() -> None:
    assert answers.unchunked(b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n") == b"abc0123456789"
