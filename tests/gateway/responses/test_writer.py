"""The writer: a chat's events become those of a response, in OpenAI's order and of OpenAI's types."""

import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2, events_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.responses.translation.settings import settings
from gateway.responses.translation.writer import ResponseWriter
from tests.gateway.responses.openai_types import checked_event, checked_response

INFO = chat_pb2.ResponseInfo(id="chatcmpl-1", created=1, model="m-2025")
USAGE = content_pb2.Usage(input_tokens=7, output_tokens=5, total_tokens=12, cached_input_tokens=2, reasoning_tokens=1)
SHOWN_USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}
LENGTH = content_pb2.FINISH_REASON_LENGTH
STOP = content_pb2.FINISH_REASON_STOP
Call = content_pb2.ToolCallDelta
Event = chat_pb2.ChatEvent


def ids() -> Callable[[str], str]:
    """Returns a maker of identifiers that can be foretold."""
    numbers = count(1)
    return lambda prefix: f"{prefix}{next(numbers)}"


def asked(**fields: Any) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def writer(**fields: Any) -> ResponseWriter:
    return ResponseWriter(
        settings(asked(**fields)), model="m", created_at=100, new_id=ids(), shows_logprobs=bool(fields.get("include"))
    )


def text(piece: str) -> Event:
    return Event(text=piece)


def delta(*, usage: content_pb2.Usage | None = None, info: chat_pb2.ResponseInfo | None = None, **fields: Any) -> Event:
    choices = [chat_pb2.ChoiceDelta(**fields)] if fields else []
    return Event(chunk=chat_pb2.Chunk(choices=choices, usage=usage, info=info))


def written(events: Sequence[Event], **fields: Any) -> list[dict[str, Any]]:
    """Returns the events of a response to a chat that comes in these events, each in a message of its own, all of them checked."""
    target = writer(**fields)
    found: list[events_pb2.JsonEvent] = []
    for event in events:
        found += target.add(chat_pb2.StreamResponse(events=[event]))
    found += target.finish(200)
    return checked(found)


def checked(found: Sequence[events_pb2.JsonEvent]) -> list[dict[str, Any]]:
    told = [checked_event(event.json) for event in found]
    assert [event["type"] for event in told] == [event.type for event in found]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def short(event: dict[str, Any]) -> str:
    """Returns an event in a line of a transcript."""
    kind = event["type"].removeprefix("response.")
    if "response" in event:
        response = event["response"]
        return f"{kind}: {response['status']}, {len(response['output'])} items"
    place = [str(event[name]) for name in ("output_index", "content_index") if name in event]
    said = [event[name] for name in ("delta", "text", "refusal", "arguments") if name in event]
    if "part" in event:
        said = [f"{event['part']['type']} {event['part'].get('text', event['part'].get('refusal'))!r}"]
    if "item" in event:
        item = event["item"]
        said = [f"{item['id']} {item['type']} {item['status']}"]
    return f"{kind} {'.'.join(place)}: {''.join(said)}"


def transcript(events: Sequence[Event], **fields: Any) -> list[str]:
    return [short(event) for event in written(events, **fields)]


def final(events: Sequence[Event], **fields: Any) -> dict[str, Any]:
    return dict(written(events, **fields)[-1]["response"])


def test_a_text_comes_in_openais_order() -> None:
    assert transcript(
        [delta(info=INFO, role=content_pb2.ROLE_ASSISTANT, text=""), text("Hel"), text("lo"), delta(finish_reason=STOP)]
    ) == [
        "created: in_progress, 0 items",
        "in_progress: in_progress, 0 items",
        "output_item.added 0: msg_2 message in_progress",
        "content_part.added 0.0: output_text ''",
        "output_text.delta 0.0: Hel",
        "output_text.delta 0.0: lo",
        "output_text.done 0.0: Hello",
        "content_part.done 0.0: output_text 'Hello'",
        "output_item.done 0: msg_2 message completed",
        "completed: completed, 1 items",
    ]


def test_reasoning_is_the_models_own_text_in_an_item_before_the_message() -> None:
    assert transcript([delta(info=INFO, reasoning="Hm"), delta(reasoning="."), text("Yes"), delta(finish_reason=STOP)])[2:] == [
        "output_item.added 0: rs_2 reasoning in_progress",
        "content_part.added 0.0: reasoning_text ''",
        "reasoning_text.delta 0.0: Hm",
        "reasoning_text.delta 0.0: .",
        "reasoning_text.done 0.0: Hm.",
        "content_part.done 0.0: reasoning_text 'Hm.'",
        "output_item.done 0: rs_2 reasoning completed",
        "output_item.added 1: msg_3 message in_progress",
        "content_part.added 1.0: output_text ''",
        "output_text.delta 1.0: Yes",
        "output_text.done 1.0: Yes",
        "content_part.done 1.0: output_text 'Yes'",
        "output_item.done 1: msg_3 message completed",
        "completed: completed, 2 items",
    ]


def test_a_refusal_is_a_part_of_the_message() -> None:
    assert transcript([delta(info=INFO, text="Well. "), delta(refusal="I "), delta(refusal="won't."), delta(finish_reason=STOP)])[
        2:
    ] == [
        "output_item.added 0: msg_2 message in_progress",
        "content_part.added 0.0: output_text ''",
        "output_text.delta 0.0: Well. ",
        "output_text.done 0.0: Well. ",
        "content_part.done 0.0: output_text 'Well. '",
        "content_part.added 0.1: refusal ''",
        "refusal.delta 0.1: I ",
        "refusal.delta 0.1: won't.",
        "refusal.done 0.1: I won't.",
        'content_part.done 0.1: refusal "I won\'t."',
        "output_item.done 0: msg_2 message completed",
        "completed: completed, 1 items",
    ]


def test_parallel_calls_with_interleaved_arguments_keep_their_places() -> None:
    """Lesson 18: the tool index is the call's own."""
    events = [
        delta(info=INFO, text="Let me see."),
        delta(tool_calls=[Call(index=0, id="c0", name="weather", arguments="")]),
        delta(tool_calls=[Call(index=1, id="c1", name="time", arguments='{"z"')]),
        delta(tool_calls=[Call(index=0, arguments='{"ci'), Call(index=1, arguments=":1}")]),
        delta(tool_calls=[Call(index=0, arguments='ty":2}')]),
        delta(finish_reason=content_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    assert transcript(events)[5:] == [
        "output_text.done 0.0: Let me see.",
        "content_part.done 0.0: output_text 'Let me see.'",
        "output_item.done 0: msg_2 message completed",
        *("output_item.added 1: fc_3 function_call in_progress", "output_item.added 2: fc_4 function_call in_progress"),
        'function_call_arguments.delta 2: {"z"',
        'function_call_arguments.delta 1: {"ci',
        "function_call_arguments.delta 2: :1}",
        'function_call_arguments.delta 1: ty":2}',
        'function_call_arguments.done 1: {"city":2}',
        "output_item.done 1: fc_3 function_call completed",
        'function_call_arguments.done 2: {"z":1}',
        "output_item.done 2: fc_4 function_call completed",
        "completed: completed, 3 items",
    ]
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in final(events)["output"][1:]]
    assert calls == [("c0", "weather", '{"city":2}'), ("c1", "time", '{"z":1}')]


def test_calls_one_after_the_other_end_one_after_the_other() -> None:
    events = [
        delta(info=INFO, tool_calls=[Call(index=0, id="c0", name="f", arguments='{"a":')]),
        delta(tool_calls=[Call(index=0, arguments='{"b":1}}')]),
        delta(tool_calls=[Call(index=1, id="c1", name="g", arguments='{"c":2}')]),
        delta(tool_calls=[Call(index=0, arguments=" ")]),
        text("Done?"),
    ]
    assert transcript(events)[2:] == [
        "output_item.added 0: fc_2 function_call in_progress",
        'function_call_arguments.delta 0: {"a":',
        'function_call_arguments.delta 0: {"b":1}}',
        'function_call_arguments.done 0: {"a":{"b":1}}',
        "output_item.done 0: fc_2 function_call completed",
        "output_item.added 1: fc_3 function_call in_progress",
        'function_call_arguments.delta 1: {"c":2}',
        'function_call_arguments.done 1: {"c":2}',
        "output_item.done 1: fc_3 function_call completed",
        "output_item.added 2: msg_4 message in_progress",
        "content_part.added 2.0: output_text ''",
        "output_text.delta 2.0: Done?",
        "output_text.done 2.0: Done?",
        "content_part.done 2.0: output_text 'Done?'",
        "output_item.done 2: msg_4 message completed",
        "completed: completed, 3 items",
    ]


@pytest.mark.parametrize("begin", ["{}", "", '{"a":"}'], ids=["an empty object", "nothing", "a brace in a string"])
def test_a_call_that_may_go_on_stays_open(begin: str) -> None:
    events = [
        delta(info=INFO, tool_calls=[Call(index=0, id="c0", name="f", arguments=begin)]),
        delta(tool_calls=[Call(index=1, id="c1", name="g", arguments="{}")]),
        delta(tool_calls=[Call(index=0, arguments=' "}')]),
    ]
    assert [item["arguments"] for item in final(events)["output"]] == [f'{begin} "}}', "{}"]


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    events = [
        delta(info=INFO, tool_calls=[Call(index=0, id="c0", name="f", arguments="{}")]),
        text("Done?"),
        delta(finish_reason=STOP),
    ]
    assert [(item["type"], item["status"]) for item in final(events)["output"]] == [
        ("function_call", "completed"),
        ("message", "completed"),
    ]


@pytest.mark.parametrize(
    ("pieces", "call"),
    [
        ([Call(id="c"), Call(name="f"), Call(arguments="{}")], ("c", "f", "{}")),
        ([Call(arguments="{"), Call(arguments="}", name="f", id="c")], ("c", "f", "{}")),
        ([Call(name="f", arguments="{}")], ("call_3", "f", "{}")),
        ([Call(name="f")], ("call_3", "f", "")),
        ([Call(id="c", arguments="{}")], ("c", "", "{}")),
    ],
    ids=["in three pieces", "arguments first", "without an id", "without an id or arguments", "without a name"],
)
def test_a_call_is_shown_once_it_is_known_what_it_calls(pieces: Sequence[Call], call: tuple[str, str, str]) -> None:
    events = [delta(info=INFO, tool_calls=[piece]) for piece in pieces]
    (item,) = final(events)["output"]
    assert (item["call_id"], item["name"], item["arguments"]) == call


def test_a_call_of_the_older_interface_is_a_call() -> None:
    events = [
        delta(info=INFO, function_call=content_pb2.FunctionCall(name="f", arguments="{")),
        delta(function_call={"arguments": "}"}),
    ]
    (item,) = final(events)["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "f", "{}")


@pytest.mark.parametrize(
    ("reason", "shown"), [(LENGTH, "max_output_tokens"), (content_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete(reason: content_pb2.FinishReason.ValueType, shown: str) -> None:
    events = [
        delta(info=INFO, reasoning="Hm."),
        delta(tool_calls=[Call(index=0, id="c0", name="f", arguments="{}"), Call(index=1, id="c1", name="g", arguments="{")]),
        delta(finish_reason=reason),
    ]
    end = written(events)[-1]
    response = end["response"]
    assert (end["type"], response["status"], response["incomplete_details"]) == (
        "response.incomplete",
        "incomplete",
        {"reason": shown},
    )
    assert [item["status"] for item in response["output"]] == ["completed", "completed", "incomplete"]
    assert response["completed_at"] is None


def test_an_answer_that_broke_off_failed_and_keeps_what_it_said() -> None:
    target = writer()
    found = target.add(chat_pb2.StreamResponse(events=[delta(info=INFO, text="Hel")]))
    found += target.add(chat_pb2.StreamResponse(events=[delta(tool_calls=[Call(index=0, id="c0")])]))
    told = checked([*found, *target.fail(ErrorKind.ERROR_KIND_RATE_LIMITED, "Too much.")])
    response = told[-1]["response"]
    assert (told[-1]["type"], response["status"]) == ("response.failed", "failed")
    assert response["error"] == {"code": "rate_limit_exceeded", "message": "Too much."}
    assert [(item["type"], item["status"]) for item in response["output"]] == [("message", "completed")]
    assert target.response is not None
    assert checked_response(target.response) == response


def test_other_choices_are_no_part_of_a_response() -> None:
    assert final([delta(info=INFO, text="one"), delta(index=1, text="two")])["output"][0]["content"][0]["text"] == "one"


def test_an_answer_without_a_word_has_no_items() -> None:
    assert transcript([delta(info=INFO, role=content_pb2.ROLE_ASSISTANT, text=""), delta(finish_reason=STOP)]) == [
        "created: in_progress, 0 items",
        "in_progress: in_progress, 0 items",
        "completed: completed, 0 items",
    ]


def test_a_response_shows_every_setting_with_openais_defaults() -> None:
    assert final([delta(info=INFO, text="Hi"), delta(finish_reason=STOP), delta(usage=USAGE)]) == {
        "id": "resp_1",
        "object": "response",
        "created_at": 100,
        "model": "m-2025",
        "status": "completed",
        "completed_at": 200,
        "error": None,
        "incomplete_details": None,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "prompt_cache_key": None,
        "safety_identifier": None,
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "previous_response_id": None,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": None, "summary": None},
        "tools": [],
        "output": [
            {
                "id": "msg_2",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
            }
        ],
        "usage": SHOWN_USAGE,
    }


def test_a_response_repeats_what_was_asked() -> None:
    tool = {
        "type": "function",
        "name": "f",
        "description": "F.",
        "parameters": {"type": "object", "properties": {}},
        "strict": True,
    }
    schema = {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}
    fields = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "tool_choice": {"type": "function", "name": "f"},
        "top_p": 0.25,
        "truncation": "auto",
        "user": "u",
    }
    others = {"text": {"format": schema}, "reasoning": {"effort": "low"}, "tools": [tool], "service_tier": "flex"}
    response = final([delta(info=chat_pb2.ResponseInfo(id="c", model="m", service_tier="priority"), text="Hi")], **fields, **others)
    assert {name: response[name] for name in fields} == fields
    assert response["text"] == {"format": schema, "verbosity": "medium"}
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["tools"] == [tool]
    assert response["service_tier"] == "priority"


def test_log_probabilities_are_shown_to_whom_they_are_asked_by() -> None:
    token = {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "Ho", "logprob": -2.5, "bytes": [72, 111]}]}
    shown = {**token, "bytes": [72, 105]}
    events = [
        delta(info=INFO, text="Hi", logprobs=json.dumps({"content": [token], "refusal": None})),
        delta(text="!", logprobs='"of another form"'),
    ]
    told = written(events, include=["message.output_text.logprobs"])
    assert [event["logprobs"] for event in told if "logprobs" in event] == [[shown], [], [shown]]
    assert told[-1]["response"]["output"][0]["content"][0]["logprobs"] == [shown]
    assert final(events)["output"][0]["content"][0]["logprobs"] == []


ARGUMENTS = st.dictionaries(st.text(max_size=2), st.integers(), max_size=2).map(json.dumps)
PIECES = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4)


def of(kind: str, piece: str) -> Event:
    fields: dict[str, Any] = {kind: piece}
    return delta(**fields)


@st.composite
def interleaved(draw: st.DrawFn, calls: Sequence[str]) -> list[Event]:
    """Gives calls in pieces, in any order in which the calls begin one after the other, and each call's pieces come in theirs."""
    rest: list[list[str]] = []
    for arguments in calls:
        cuts = sorted(draw(st.sets(st.integers(1, len(arguments) - 1), max_size=3)))
        rest.append([arguments[start:end] for start, end in zip([0, *cuts], [*cuts, len(arguments)], strict=True)])
    events: list[Event] = []
    begun = 0
    while any(rest):
        number = draw(st.sampled_from([number for number, pieces in enumerate(rest) if pieces and number <= begun]))
        call = Call(index=number, arguments=rest[number].pop(0))
        if number == begun:
            begun += 1
            call.id, call.name = f"c{number}", "f"
        events.append(delta(tool_calls=[call]))
    return events


@st.composite
def chats(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Gives one answer in two chunkings: as it could come whole, piece by piece, and any other way."""
    coarse, fine = [delta(info=INFO)], [delta(info=INFO)]
    for kind in draw(st.lists(st.sampled_from(["reasoning", "text", "refusal"]), max_size=5)):
        pieces = draw(PIECES)
        coarse.append(of(kind, "".join(pieces)))
        fine += [text(piece) if kind == "text" and draw(st.booleans()) else of(kind, piece) for piece in pieces]
    calls = draw(st.lists(ARGUMENTS, max_size=3))
    coarse += [delta(tool_calls=[Call(index=n, id=f"c{n}", name="f", arguments=a)]) for n, a in enumerate(calls)]
    fine += draw(interleaved(calls))
    reason = draw(st.sampled_from([STOP, content_pb2.FINISH_REASON_TOOL_CALLS]))
    for events in (coarse, fine):
        events += [delta(finish_reason=reason), delta(usage=USAGE)]
    return coarse, fine


def lifecycle(told: Sequence[dict[str, Any]]) -> None:
    """Makes sure that every item and part begins and ends once, is spoken of in between alone, and ends as the response has it."""
    open_items: dict[int, str] = {}
    open_parts: dict[tuple[int, int], list[str]] = {}
    done: dict[int, Any] = {}
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    for event in told[2:-1]:
        index, kind = event["output_index"], event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert index == len(open_items) + len(done)
            assert event["item"].get("content", []) == []
            open_items[index] = event["item"]["id"]
            continue
        if kind == "output_item.done":
            assert open_items.pop(index) == event["item"]["id"]
            assert all(place[0] != index for place in open_parts)
            done[index] = event["item"]
            continue
        assert event["item_id"] == open_items[index]
        place = (index, event.get("content_index", -1))
        if kind == "content_part.added":
            open_parts[place] = []
        elif kind == "content_part.done":
            said = "".join(open_parts.pop(place))
            assert said == event["part"].get("text", event["part"].get("refusal"))
        elif kind.endswith(".delta") and place in open_parts:
            open_parts[place].append(event["delta"])
    assert not open_items
    assert not open_parts
    assert [done[index] for index in sorted(done)] == told[-1]["response"]["output"]


@hypothesis.settings(deadline=None)
@given(chats(), st.data())
def test_any_chunking_of_a_chat_gives_the_same_response(chat: tuple[list[Event], list[Event]], data: st.DataObject) -> None:
    coarse, fine = chat
    expected = final(coarse)
    target = writer()
    found: list[events_pb2.JsonEvent] = []
    rest = list(fine)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += target.add(chat_pb2.StreamResponse(events=rest[:size]))
        rest = rest[size:]
    told = checked([*found, *target.finish(200)])
    lifecycle(told)
    assert told[-1]["response"] == expected
