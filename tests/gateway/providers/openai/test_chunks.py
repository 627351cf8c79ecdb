"""What the answers of OpenAI-compatible providers are read into: chunk by chunk, whole, and all that nobody has a name for.

Losslessness is shown on the whole road: what a provider sent, read here and written by the bridge's dialect, is what a client gets.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.dialects.openai_chat import response as whole_dialect
from bridge.dialects.openai_chat.stream import StreamRenderer
from gateway.errors import GatewayError
from gateway.operations.fold import Fold
from gateway.providers.openai.chunks import ChunkReader

IDENTITY = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m-1"}


def chunk(*choices: Any, **fields: Any) -> dict[str, Any]:
    return {**IDENTITY, "choices": list(choices), **fields}


def choice(delta: Any, index: int = 0, finish_reason: Any = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **fields}


def encoded(fields: Any) -> bytes:
    return fields if isinstance(fields, bytes) else json.dumps(fields, ensure_ascii=False).encode()


class Provider:
    """A provider's stream, read as it comes."""

    def __init__(self) -> None:
        self.reader = ChunkReader("acme")
        self.renderer = StreamRenderer(include_usage=True)

    def sends(self, *payloads: Any) -> list[chat_pb2.ChatEvent]:
        """Returns the events of some chunks."""
        response = chat_pb2.StreamResponse()
        for payload in payloads:
            self.reader.read(encoded(payload), response)
        return list(response.events)

    def shown(self, *payloads: Any) -> list[Any]:
        """Returns what a client sees of some chunks; a name given twice is an error."""
        data = self.renderer.render(chat_pb2.StreamResponse(events=self.sends(*payloads)))
        return [strict(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event]


def strict(data: bytes) -> Any:
    """Reads JSON in which a name that is given twice is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    return json.loads(data, object_pairs_hook=unique)


def read_whole(answer: Any) -> chat_pb2.StreamResponse:
    response = chat_pb2.StreamResponse()
    ChunkReader("acme").read_whole(encoded(answer), response)
    return response


def shown_whole(answer: Any) -> Any:
    """Returns what a client sees of a whole answer."""
    fold = Fold()
    fold.add(read_whole(answer))
    return strict(whole_dialect.render(fold.result()))


def test_nearly_every_chunk_becomes_a_text_and_nothing_else() -> None:
    first, *rest = Provider().sends(
        chunk(choice({"role": "assistant", "content": ""})), chunk(choice({"content": "Hel"})), chunk(choice({"content": "lo 🌍"}))
    )
    assert first.chunk.info == chat_pb2.ResponseInfo(id="chatcmpl-1", created=1700000000, model="m-1")
    assert first.chunk.choices[0].role == content_pb2.ROLE_ASSISTANT
    assert rest == [chat_pb2.ChatEvent(text="Hel"), chat_pb2.ChatEvent(text="lo 🌍")]


@pytest.mark.parametrize(
    "nulls",
    [
        {"refusal": None},
        {"reasoning_content": None},
        {"tool_calls": None, "function_call": None},
    ],
    ids=", ".join,
)
def test_nulls_that_say_nothing_do_not_make_a_text_more_than_a_text(nulls: dict[str, None]) -> None:
    events = Provider().sends(chunk(choice({"content": "a", **nulls})), chunk(choice({"content": "b", **nulls}), usage=None))
    assert events[1] == chat_pb2.ChatEvent(text="b")


@pytest.mark.parametrize(
    "more",
    [
        {"id": "chatcmpl-2"},
        {"model": "m-2"},
        {"created": 1700000001},
        {"system_fingerprint": "fp"},
        {"service_tier": "flex"},
        {"choices": [choice({"content": "b"}, index=1)]},
        {"choices": [choice({"content": "b"}, finish_reason="stop")]},
        {"choices": [choice({"content": "b"}, logprobs={"content": []})]},
        {"choices": [choice({"content": "b", "x": 1})]},
        {"choices": [choice({"content": "b"}, x=1)]},
        {"choices": [choice({"content": "b"}), choice({"content": "c"}, index=1)]},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        {"x": 1},
    ],
    ids=lambda more: json.dumps(more)[:60],
)
def test_a_text_that_comes_with_more_keeps_it(more: dict[str, Any]) -> None:
    provider = Provider()
    provider.sends(chunk(choice({"content": "a"})))
    (event,) = provider.sends({**chunk(choice({"content": "b"})), **more})
    assert event.HasField("chunk")
    provider = Provider()
    expected = [chunk(choice({"content": "a"}), usage=None), {**chunk(choice({"content": "b"}), usage=None), **more}]
    assert provider.shown(*expected) == expected


def test_an_unchanged_identity_is_told_once_and_a_changed_one_again() -> None:
    events = Provider().sends(
        chunk(prompt_filter_results=[]), chunk(choice({"role": "assistant"})), {**chunk(choice({"x": 1})), "id": "chatcmpl-2"}
    )
    assert [event.chunk.info.id for event in events] == ["chatcmpl-1", "", "chatcmpl-2"]


@pytest.mark.parametrize(
    "empty",
    [
        {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {**IDENTITY, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}},
        {**IDENTITY, "choices": None},
        {**IDENTITY},
    ],
    ids=["Azure's first", "usage", "null", "none"],
)
def test_a_chunk_without_choices_is_passed_on(empty: dict[str, Any]) -> None:
    (shown,) = Provider().shown(empty)
    assert shown == {
        "usage": None,
        **{name: value for name, value in empty.items() if value is not None},
        "object": "chat.completion.chunk",
        "choices": [],
    }


def test_parallel_tool_calls_are_read_piece_by_piece() -> None:
    provider = Provider()
    events = provider.sends(
        chunk(choice({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]})),
        chunk(choice({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"x'}}]})),
        chunk(
            choice(
                {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": '":"\\u'}}]}
            )
        ),
        chunk(choice({"tool_calls": [{"index": 1, "function": {"arguments": '00fc"}'}}]})),
    )
    deltas = [call for event in events for call in event.chunk.choices[0].tool_calls]
    assert deltas == [
        content_pb2.ToolCallDelta(index=0, id="a", type="function", name="f", arguments=""),
        content_pb2.ToolCallDelta(index=1, id="b", name="g", arguments='{"x'),
        content_pb2.ToolCallDelta(index=0, arguments="{}"),
        content_pb2.ToolCallDelta(index=1, arguments='":"\\u'),
        content_pb2.ToolCallDelta(index=1, arguments='00fc"}'),
    ]
    assert provider.reader.has_output


def call(identifier: str | None = None, name: str | None = None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**({"id": identifier} if identifier is not None else {}), "function": function, **fields}


@pytest.mark.parametrize(
    ("pieces", "numbers"),
    [
        ([[call("a", "f", "{}")], [call("b", "g", "{}")]], [0, 1]),
        ([[call("a", "f", "{"), call("b", "g", "{")], [call("a", arguments="}")], [call("b", arguments="}")]], [0, 1, 0, 1]),
        ([[call("a", "f", "{")], [call(arguments="}")], [call("b", "g", "{")], [call(arguments="}")]], [0, 0, 1, 1]),
        ([[call("a", "f", "{}", index=0)], [call("b", "g", "{", index=0)], [call(arguments="}", index=0)]], [0, 1, 1]),
        ([[call("a", "f", "{", index=0)], [call("a", "f", "}", index=0)]], [0, 0]),
        ([[call("a", "f", "{", index=0)], [call("z", arguments="}", index=0)]], [0, 0]),
        ([[call("a", "f", "{", index=1)], [call("b", "g", "{", index=3)], [call(arguments="}", index=1)]], [1, 3, 1]),
        ([[call(arguments="{}")]], [0]),
        ([[call("", "f", "{}")], [call("", "g", "{}")]], [0, 1]),
    ],
    ids=[
        "no index, one call a chunk",
        "no index, told apart by id",
        "no index and no id in later pieces",
        "one index for two calls",
        "id and name repeated",
        "a new id in every piece of one call",
        "numbers with gaps",
        "a piece of a call that never began",
        "ids that are empty",
    ],
)
def test_calls_that_a_provider_does_not_number_well_are_told_apart(pieces: list[list[Any]], numbers: list[int]) -> None:
    events = Provider().sends(*(chunk(choice({"tool_calls": calls})) for calls in pieces))
    assert [delta.index for event in events for delta in event.chunk.choices[0].tool_calls] == numbers


def test_each_choice_numbers_its_own_calls() -> None:
    events = Provider().sends(
        chunk(choice({"tool_calls": [call("a", "f")]}), choice({"tool_calls": [call("b", "f")]}, index=1)),
        chunk(choice({"tool_calls": [call("c", "f")]}, index=1)),
    )
    assert [delta.index for event in events for one in event.chunk.choices for delta in one.tool_calls] == [0, 0, 1]


def test_arguments_that_are_no_text_become_one() -> None:
    (event,) = Provider().sends(chunk(choice({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"a": 1.50}}}]})))
    assert json.loads(event.chunk.choices[0].tool_calls[0].arguments) == {"a": 1.5}


def test_reasoning_by_another_vendors_name_is_told_under_both() -> None:
    assert Provider().shown(chunk(choice({"reasoning": "Hm."}))) == [
        chunk(choice({"reasoning_content": "Hm.", "reasoning": "Hm."}), usage=None)
    ]


def test_finish_reasons_are_gathered_in_the_order_in_which_choices_end() -> None:
    provider = Provider()
    provider.sends(
        chunk(choice({}, index=1, finish_reason="length")),
        chunk(choice({"content": "a"}, finish_reason="")),
        chunk(choice({}, finish_reason="a_new_reason")),
    )
    assert provider.reader.finish_reasons == [content_pb2.FINISH_REASON_LENGTH, content_pb2.FINISH_REASON_UNSPECIFIED]


def test_the_last_usage_counts() -> None:
    provider = Provider()
    for tokens in (1, 2):
        provider.sends(chunk(choice({"content": "a"}), usage={"prompt_tokens": 9, "completion_tokens": tokens}))
    provider.sends(chunk(usage=None))
    assert provider.reader.usage == content_pb2.Usage(input_tokens=9, output_tokens=2, total_tokens=11)


@pytest.mark.parametrize(
    ("delta", "speaks"),
    [
        ({}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": ""}, False),
        ({"content": None, "tool_calls": [], "audio": None, "annotations": []}, False),
        ({"content": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"refusal": "a"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"audio": {"id": "a"}}, True),
        ({"content": [{"type": "text", "text": "a"}]}, True),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("position", ["first", "later"])
def test_output_is_what_says_something(delta: dict[str, Any], speaks: bool, position: str) -> None:
    provider = Provider()
    if position == "later":
        provider.sends(chunk(choice({"role": "assistant"})))
    provider.sends(chunk(choice(delta)))
    assert provider.reader.has_output is speaks


@pytest.mark.parametrize(
    "payload",
    [b"", b"oops", b"[]", b"7", b"null", b'"text"', b'{"choices":', b"\xff", b'{"x":"\xff"}', b"[" * 100_000, b'{"a":NaN}'],
    ids=lambda payload: repr(payload[:20]),
)
@pytest.mark.parametrize("how", ["read", "read_whole"])
def test_what_is_no_json_object_is_an_error_of_the_provider(payload: bytes, how: str) -> None:
    response = chat_pb2.StreamResponse()
    with pytest.raises(GatewayError) as raised:
        getattr(ChunkReader("acme"), how)(payload, response)
    assert (raised.value.kind, raised.value.provider) == (ErrorKind.ERROR_KIND_PROVIDER_ERROR, "acme")
    assert "acme" in raised.value.message
    assert not response.events


@pytest.mark.parametrize("error", ['"Oops."', '{"message":"Oops."}', '{"message":"Oops.","n":1e999}'])
@pytest.mark.parametrize("how", ["read", "read_whole"])
def test_an_error_where_an_answer_should_be_is_raised(error: str, how: str) -> None:
    with pytest.raises(GatewayError, match=r"Oops\.|ended the stream"):
        getattr(ChunkReader("acme"), how)(f'{{"error":{error}}}'.encode(), chat_pb2.StreamResponse())


@pytest.mark.parametrize("nothing", [None, {}, "", False])
def test_an_error_that_says_nothing_is_none(nothing: Any) -> None:
    assert Provider().shown(chunk(choice({"content": "a"}), error=nothing)) == [
        chunk(choice({"content": "a"}), error=nothing, usage=None)
    ]


# What is kept though it has no field, or not the type of its field.

KEPT = [
    {"id": 7},
    {"created": 1700000000.5},
    {"created": "yesterday"},
    {"created": -1},
    {"created": 2**70},
    {"model": ["m"]},
    {"service_tier": 1},
    {"system_fingerprint": {"a": 1}},
    {"usage": "much"},
    {"choices": {"0": "a"}},
    {"choices": [1, None]},
    {"choices": [choice("a")]},
    {"choices": [choice({}, index=2**31)]},
    {"choices": [choice({}, index=-1)]},
    {"choices": [choice({}, finish_reason=7)]},
    {"choices": [choice({"role": "critic"})]},
    {"choices": [choice({"role": 7})]},
    {"choices": [choice({"content": [{"type": "text", "text": "a"}]})]},
    {"choices": [choice({"refusal": 7, "reasoning_content": {}})]},
    {"choices": [choice({"tool_calls": "f"})]},
    {"choices": [choice({"tool_calls": [7]})]},
    {"choices": [choice({"tool_calls": [{"index": 0, "id": 7, "type": None, "function": "f"}]})]},
    {"choices": [choice({"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "f", "input": "x"}}]})]},
    {"choices": [choice({"function_call": "f"})]},
    {"usage": {"prompt_tokens": 2**70, "completion_tokens": 1, "total_tokens": 1}},
    {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1, "prompt_tokens_details": [1]}},
    {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1, "completion_tokens_details": "x"}},
    {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1, "completion_tokens_details": {"a": None}}},
]


@pytest.mark.parametrize("more", KEPT, ids=lambda more: json.dumps(more)[:70])
def test_what_has_an_unexpected_type_reaches_the_client_as_it_came(more: dict[str, Any]) -> None:
    sent = {**chunk(choice({"content": "a"})), "usage": None, **more}
    provider = Provider()
    (shown,) = provider.shown(sent)
    expected = json.loads(json.dumps(sent))
    for one in expected["choices"]:
        for tool_call in one["delta"].get("tool_calls", []) if isinstance(one, dict) and isinstance(one["delta"], dict) else []:
            if isinstance(tool_call, dict) and tool_call.get("type", "") is None:
                del tool_call["type"]
    assert shown == expected
    following = {**sent, "choices": [choice({"content": "b"})]}
    assert provider.shown(following) == [following]


def test_numbers_keep_the_form_in_which_they_came() -> None:
    payload = (
        b'{"id":"1","created":1,"model":"m","cost":0.10,"huge":1e400 ,"big":123456789012345678901234567890,'
        b'"choices":[{"index":0,"delta":{"content":"a","x":1.0},"logprobs":{"content":[{"logprob":-0.10}]}}]}'
    )
    provider = Provider()
    shown = provider.renderer.render(chat_pb2.StreamResponse(events=provider.sends(payload)))
    for text in (
        b'"cost":0.10',
        b'"huge":1e400',
        b'"big":123456789012345678901234567890',
        b'"x":1.0}',
        b'{"content":[{"logprob":-0.10}]}',
    ):
        assert text in shown, text


texts = st.text(st.characters(codec="utf-8"), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
unknown = st.dictionaries(texts.map(lambda name: f"x_{name}"), json_values, max_size=2)
counts = st.integers(0, 2**40)


def objects(unknown_too: bool = True, /, *, required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[Any]:
    """Objects that have all `required` fields, any of the `optional` ones, and some of which nobody has heard."""
    known = st.fixed_dictionaries(required or {}, optional=optional)
    return st.builds(lambda fields, more: {**fields, **more}, known, unknown) if unknown_too else known


roles = st.sampled_from(["assistant", "user", "system", "developer", "tool", "function", "critic"])
reasons = st.none() | st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call", "sensitive"])
functions = objects(name=texts, arguments=texts).filter(bool)
usages = st.none() | objects(
    required={"prompt_tokens": counts, "completion_tokens": counts, "total_tokens": counts},
    prompt_tokens_details=objects(cached_tokens=counts, cache_creation_tokens=counts, audio_tokens=counts).filter(bool),
    completion_tokens_details=objects(reasoning_tokens=counts, accepted_prediction_tokens=counts).filter(bool),
)
identities = st.fixed_dictionaries(
    {"id": texts, "created": counts, "model": texts}, optional={"system_fingerprint": texts, "service_tier": texts}
)
call_deltas = st.lists(objects(id=texts, type=texts, function=functions), max_size=3).map(
    lambda calls: [{"index": number, **one} for number, one in enumerate(calls)]
)
deltas = objects(
    role=roles,
    content=texts,
    reasoning_content=texts,
    refusal=texts,
    tool_calls=call_deltas.filter(bool),
    function_call=objects(name=texts, arguments=texts),
)
choices = st.lists(
    objects(required={"delta": deltas, "logprobs": st.none() | objects(), "finish_reason": reasons}), max_size=3
).map(lambda listed: [{"index": number, **one} for number, one in enumerate(listed)])
chunks = st.builds(
    lambda identity, listed, usage, more: {
        **identity,
        "object": "chat.completion.chunk",
        "choices": listed,
        "usage": usage,
        **more,
    },
    identities,
    choices,
    usages,
    unknown,
)


@given(st.lists(chunks, min_size=1, max_size=4))
def test_what_a_provider_streams_reaches_the_client_whole(sent: list[Any]) -> None:
    for one in sent[1:]:  # a stream has one identity, so that its calls are numbered once
        for each in one["choices"]:
            each["delta"].pop("tool_calls", None)
    assert Provider().shown(*sent) == sent


answers = st.builds(
    lambda identity, listed, usage, more: {
        **identity,
        "object": "chat.completion",
        "choices": listed,
        **({} if usage is None else {"usage": usage}),
        **more,
    },
    identities,
    st.lists(
        objects(
            required={
                "message": objects(
                    required={"role": roles, "content": st.none() | texts, "refusal": st.none() | texts},
                    reasoning_content=texts,
                    tool_calls=st.lists(
                        objects(
                            required={
                                "id": texts,
                                "type": st.sampled_from(["function", "custom"]),
                                "function": objects(required={"name": texts.filter(bool), "arguments": texts}),
                            }
                        )
                        | objects(required={"id": texts, "type": st.just("custom"), "custom": json_values}),
                        min_size=1,
                        max_size=3,
                    ),
                    function_call=objects(name=texts, arguments=texts),
                ),
                "logprobs": st.none() | objects(),
                "finish_reason": reasons,
            }
        ),
        max_size=3,
    ).map(lambda listed: [{"index": number, **one} for number, one in enumerate(listed)]),
    usages,
    unknown,
)


@given(answers)
def test_what_a_provider_answers_whole_reaches_the_client_whole(sent: Any) -> None:
    assert shown_whole(sent) == sent


@given(st.binary(max_size=60) | json_values.map(encoded) | chunks.map(lambda sent: json.dumps(sent).encode()[:-3]))
def test_whatever_a_provider_sends_is_read_or_is_its_error(payload: bytes) -> None:
    try:
        Provider().shown(payload)
    except GatewayError as error:
        assert error.provider == "acme"  # noqa: PT017 (either is right, and nothing else)
