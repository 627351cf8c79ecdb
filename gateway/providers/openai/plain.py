"""Tells whether a whole answer is, as it came, what a client of OpenAI's dialect expects.

Nearly all are. Such an answer is carried as text: reading it into the vocabulary and writing it again would cost more than all else
that is done with it. Only what the gateway itself needs is read. What deviates is read into the vocabulary, which puts it right.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class _Function(msgspec.Struct, gc=False):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, gc=False):
    id: _Name
    type: Literal["function"]
    function: _Function
    index: UnsetType = UNSET


class _Message(msgspec.Struct, gc=False):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: Annotated[list[_ToolCall], msgspec.Meta(min_length=1)] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: UnsetType = UNSET  # another name of it, under which no client would find it
    function_call: UnsetType = UNSET


class _Choice(msgspec.Struct, gc=False):
    index: int
    message: _Message
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: Raw


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count


class Plain(msgspec.Struct, gc=False):
    """What the gateway needs of an answer.

    Attributes:
        id: The answer's id.
        created: When it was made, in seconds since 1970.
        model: The model, as the provider names it.
        choices: The choices, in order.
        usage: What was consumed, as JSON; UNSET if the provider did not say.
    """

    id: _Name
    object: Literal["chat.completion"]
    created: _Count
    model: str
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: Raw | UnsetType = UNSET
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: None = None


_PLAIN = msgspec.json.Decoder(Plain)
_USAGE = msgspec.json.Decoder(_Usage)


def read_plain(body: bytes) -> Plain | None:
    """Returns what the gateway needs of a whole answer; None if the answer must be read into the vocabulary."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into strings that it passes over
        answer = _PLAIN.decode(body)
        if answer.usage is not UNSET:
            _USAGE.decode(answer.usage)
    except (ValueError, RecursionError):
        return None
    if any(choice.index != number for number, choice in enumerate(answer.choices)):
        return None
    return answer
