"""A request of the Responses API as a chat.

What chat has by another name is put there, what is the gateway's own business (`store`, `metadata`) or a mere knob of the Responses
API is left out, and a feature that chat has not is refused. Fields that nobody knows go along. docs/endpoints.md has the table.
Above is the operation; below are `conversation`, `parts` and `tools`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.content_pb2 import ToolChoiceMode

from gateway.responses.translation.conversation import Conversation
from gateway.responses.translation.reading import (
    NULL,
    Fields,
    Reader,
    boolean,
    given,
    integer,
    is_string,
    json_object,
    lacking,
    number,
    one_of,
    optional,
    refused,
    string,
    string_map,
    strings,
)
from gateway.responses.translation.tools import tools_and_choice

LOGPROBS = "message.output_text.logprobs"
"""What `include` asks for if it wants log probabilities."""

_ITEM = msgspec.json.Decoder(dict[str, Raw])
_MODES: Mapping[str, ToolChoiceMode.ValueType] = {
    "auto": content_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": content_pb2.TOOL_CHOICE_MODE_NONE,
    "required": content_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
_SCALARS: Mapping[str, tuple[str, Reader]] = {
    "temperature": ("temperature", number),
    "top_p": ("top_p", number),
    "max_output_tokens": ("max_completion_tokens", integer),
    "user": ("user", string),
}
"""Fields that the vocabulary has too: its name for each."""

_OWN: Mapping[str, Reader] = {
    "store": boolean,
    "metadata": string_map,
    "truncation": one_of("auto", "disabled"),
    "max_tool_calls": integer,
    "stream": boolean,
}
"""Fields that are checked and go no further: the gateway's own business, or about tools that are not there."""

_LEFT_OUT = frozenset(
    {
        *("input", "instructions", "model", "tools", "tool_choice", "text", "reasoning", "include", "top_logprobs"),
        *("parallel_tool_calls", "previous_response_id", "stream_options", "access_programs", "background_options", "image"),
        "background",
    }
)
"""Fields that are read elsewhere, and knobs that mean nothing in a chat."""

_CHECKED: Mapping[str, Reader] = {"safety_identifier": string, "prompt_cache_key": string, "service_tier": string}
"""Fields that go along by their own name."""

_FEATURES: Mapping[str, tuple[str, str]] = {
    "prompt": ("a stored prompt", "Send its text as instructions and input."),
    "conversation": ("a conversation that is kept", "Send it as input."),
    "context_management": ("compaction", "Send a shorter input."),
}
_NAMES_IN_CHAT: Mapping[str, str] = {"messages": "input", "functions": "tools", "function_call": "tool_choice"}


def translate(fields: Fields, *, model: str, history: Sequence[bytes] = (), keeps_reasoning: bool = False) -> chat_pb2.ChatRequest:
    """Returns the chat that a request asks for.

    Args:
        fields: The request's fields, unread.
        model: The model.
        history: The items of earlier requests and answers, as JSON texts, oldest first. They stand between the request's
            instructions and its input.
        keeps_reasoning: Whether the provider is shown again what a model thought.

    Raises:
        GatewayError: A field is not what the Responses API says, or chat has nothing like it.
    """
    _check_features(fields)
    if not history and given(fields, "previous_response_id") is not None:
        raise lacking("previous_response_id", "what another provider remembers", "Send the conversation as input.")
    conversation = _conversation(fields, history, keeps_reasoning=keeps_reasoning)
    chat = chat_pb2.ChatRequest(model=model, messages_json=orjson.dumps(conversation.messages))
    for name, (own, read) in _SCALARS.items():
        raw = given(fields, name)
        if raw is not None:
            setattr(chat, own, _stored(read(raw, name), name))
    _put_tools(chat, fields)
    _put_text(chat, fields)
    _put_reasoning(chat, fields)
    _put_logprobs(chat, fields)
    for name, raw in fields.items():
        if name in _SCALARS or name in _LEFT_OUT or raw == NULL:
            continue
        reader = _OWN.get(name) or _CHECKED.get(name)
        if reader is not None:
            reader(raw, name)
        if name not in _OWN:
            chat.extra[name] = str(raw, "utf-8")
    return chat


def wants_logprobs(fields: Fields) -> bool:
    """Tells whether a request asks for log probabilities.

    Raises:
        GatewayError: `include` is no list of strings.
    """
    raw = given(fields, "include")
    return raw is not None and LOGPROBS in strings(raw, "include")


def _check_features(fields: Fields) -> None:
    for name, (what, instead) in _FEATURES.items():
        if given(fields, name) is not None:
            raise lacking(name, what, instead)
    for name, own in _NAMES_IN_CHAT.items():
        if name in fields:
            raise refused(name, f"'{name}' is a field of chat. Here it is '{own}'.")
    raw = given(fields, "background")
    if raw is not None and boolean(raw, "background"):
        raise lacking("background", "an answer in the background", "Ask without it, and stream.")
    raw = given(fields, "n")
    if raw is not None and integer(raw, "n") != 1:
        raise refused("n", "'n' must be 1: a response is one answer.")


def _conversation(fields: Fields, history: Sequence[bytes], *, keeps_reasoning: bool) -> Conversation:
    conversation = Conversation(keeps_reasoning=keeps_reasoning)
    raw = given(fields, "instructions")
    if raw is not None and is_string(raw):
        conversation.add_text("system", string(raw, "instructions"))
    elif raw is not None:
        conversation.add_input(raw, "instructions")
    for item in history:
        conversation.add_past(_ITEM.decode(item))
    raw = given(fields, "input")
    if raw is not None:
        conversation.add_input(raw, "input")
    if not conversation.messages:
        raise refused("input", "'input' must be given: a text, or at least one item.")
    return conversation


def _stored(value: Any, param: str) -> Any:
    """Returns a value if its field can hold it."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise refused(param, f"'{param}' must be an integer of 64 bits.")
    return value


def _put_tools(chat: chat_pb2.ChatRequest, fields: Fields) -> None:
    tools, choice = tools_and_choice(fields)
    raw = given(fields, "parallel_tool_calls")
    parallel = None if raw is None else boolean(raw, "parallel_tool_calls")
    if tools:
        chat.tools_json = orjson.dumps(tools)
        if parallel is not None:
            chat.parallel_tool_calls = parallel
    if isinstance(choice, str):
        chat.tool_choice.mode = _MODES[choice]
    elif choice is not None:
        chat.tool_choice.mode = content_pb2.TOOL_CHOICE_MODE_NAMED
        chat.tool_choice.name = choice["function"]["name"]


def _put_text(chat: chat_pb2.ChatRequest, fields: Fields) -> None:
    raw = given(fields, "text")
    if raw is None:
        return
    text = json_object(raw, "text")
    verbosity = optional(text, "verbosity", "text")
    if verbosity is not None:
        chat.extra["verbosity"] = str(text["verbosity"], "utf-8")
    raw = given(text, "format")
    if raw is None:
        return
    form = json_object(raw, "text.format")
    kind = optional(form, "type", "text.format")
    match kind:
        case "text":
            return
        case "json_object":
            chat.response_format.type = kind
        case "json_schema":
            _put_schema(chat.response_format, form)
        case _:
            raise refused("text.format.type", "'text.format.type' must be one of text, json_object, json_schema.")


def _put_schema(target: content_pb2.ResponseFormat, form: Fields) -> None:
    target.type = "json_schema"
    for name, raw in form.items():
        place = f"text.format.{name}"
        match name:
            case "type":
                pass
            case _ if raw == NULL:
                pass
            case "name" | "description":
                setattr(target, name, string(raw, place))
            case "strict":
                target.strict = boolean(raw, place)
            case "schema":
                json_object(raw, place)
                target.schema = str(raw, "utf-8")
            case _:
                target.json_schema_extra[name] = str(raw, "utf-8")
    for name in ("name", "schema"):
        if not target.HasField(name):  # type: ignore[arg-type]  # a name put together
            raise refused(f"text.format.{name}", f"'text.format.{name}' must be given.")


def _put_reasoning(chat: chat_pb2.ChatRequest, fields: Fields) -> None:
    raw = given(fields, "reasoning")
    if raw is None:
        return
    reasoning = json_object(raw, "reasoning")
    effort = optional(reasoning, "effort", "reasoning")
    optional(reasoning, "summary", "reasoning")  # what comes is the reasoning itself, if anything does
    if effort is not None:
        chat.reasoning_effort = effort


def _put_logprobs(chat: chat_pb2.ChatRequest, fields: Fields) -> None:
    raw = given(fields, "top_logprobs")
    most = None if raw is None else integer(raw, "top_logprobs")
    if most is not None and not 0 <= most <= 20:
        raise refused("top_logprobs", "'top_logprobs' must be between 0 and 20.")
    if wants_logprobs(fields):
        chat.logprobs = True
        if most is not None:
            chat.top_logprobs = most
