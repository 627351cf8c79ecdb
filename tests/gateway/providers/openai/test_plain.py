"""Whole answers that go through as text: they are the ones that reading and writing would not change."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import chat_pb2

from bridge.dialects.openai_chat import response as dialect
from gateway.operations.fold import Fold
from gateway.providers.openai.chunks import ChunkReader

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE: dict[str, Any] = {"role": "assistant", "content": "Grüezi", "refusal": None, "annotations": []}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m-1",
    "choices": [
        {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "message": {**MESSAGE, "tool_calls": [CALL]}, "logprobs": {"content": []}, "finish_reason": "tool_calls"},
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
    "service_tier": "default",
    "system_fingerprint": None,
    "x_answer": {"deep": [1]},
}


def said(value: Any) -> Any:
    """Returns a value without its nulls and empty objects, which mean the same as absence."""
    if isinstance(value, dict):
        inner = {name: said(one) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one is not None and one != {}}
    return [said(inner) for inner in value] if isinstance(value, list) else value


def facts(reader: ChunkReader) -> Any:
    return reader.info(), reader.usage, sorted(reader.finish_reasons), reader.has_output


def carried(answer: Any) -> bool:
    """Tells whether an answer is carried; if so, makes sure that a client could not tell."""
    body = json.dumps(answer, ensure_ascii=False).encode()
    reader = ChunkReader("acme")
    text = reader.carry_whole(body)
    if text is None:
        return False
    assert text.openai_json == body
    reading = ChunkReader("acme")
    event = chat_pb2.StreamResponse()
    reading.read_whole(body, event)
    fold = Fold()
    fold.add(event)
    whole = fold.result()
    shown = json.loads(dialect.render(whole))
    assert said(shown) == said(answer)
    for choice, own in zip(shown["choices"], answer["choices"], strict=True):
        assert choice.keys() == own.keys()
        assert choice["message"].keys() == own["message"].keys()
    assert facts(reader) == facts(reading)
    assert (text.info, text.usage) == (whole.info, whole.usage)
    return True


def test_an_answer_in_openais_form_is_carried() -> None:
    assert carried(ANSWER)


def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """Returns the path of every value inside a JSON value."""
    if isinstance(value, dict):
        return [path_ for name, inner in value.items() for path_ in [(*path, name), *places(inner, *path, name)]]
    if isinstance(value, list):
        return [path_ for number, inner in enumerate(value) for path_ in [(*path, number), *places(inner, *path, number)]]
    return []


@given(
    st.sampled_from(places(ANSWER)),
    st.sampled_from(["removed", None, "text", "", 7, -1, 1.5, True, [], {}, [7], {"a": 1}, [CALL], "length", "user"]),
)
def test_an_answer_is_carried_only_if_nothing_in_it_has_to_be_put_right(path: tuple[Any, ...], value: Any) -> None:
    answer = copy.deepcopy(ANSWER)
    holder = answer
    for step in path[:-1]:
        holder = holder[step]
    if value == "removed":
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    carried(answer)


@pytest.mark.parametrize(
    "more",
    [
        {"message": {**MESSAGE, "reasoning": "Hm."}},
        {"message": {**MESSAGE, "function_call": {"name": "f", "arguments": ""}}},
        {"message": {**MESSAGE, "tool_calls": [{**CALL, "index": 0}]}},
        {"message": {**MESSAGE, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}},
        {"message": {"role": "assistant", "content": "a"}},
        {"index": 1},
        {"finish_reason": "eos"},
    ],
    ids=json.dumps,
)
def test_a_choice_that_has_to_be_put_right_is_read(more: dict[str, Any]) -> None:
    assert not carried({**ANSWER, "choices": [{**ANSWER["choices"][0], **more}]})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"error":{"message":"no"}}', json.dumps(ANSWER).encode().replace(b"m-1", b"\xff")]
)
def test_what_is_no_answer_is_not_carried(body: bytes) -> None:
    assert ChunkReader("acme").carry_whole(body) is None
