"""Making a conversation shorter that was too long: a model is asked to summarise its older part, and the rest goes on from that.

What was said last stays as it is, and so do the instructions. Tool results stay with the calls that they answer. Above are the
chat's operation and the exchange, which asks; nothing here asks anybody. Pure.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from twinspan.v1 import chat_pb2, content_pb2

_ACTIVE_MESSAGES: Final = 6
"""How many of the last messages stay as they are."""

_MOST_CHARACTERS: Final = 48_000
"""How much of the older part is shown to the model that summarises it; of more, the middle is left out."""

_INSTRUCTIONS: Final = (
    "Summarise the conversation below, so that it can go on from your summary alone. Keep every fact, name, number, decision, file,"
    " command and open question that may matter later, in the words that were used. Do not answer it, and write only the summary."
)
_LEAD: Final = "Summary of the earlier conversation:\n\n"
_SUMMARY_TOKENS: Final = 1500
_INSTRUCTING: Final = frozenset({"system", "developer"})
_ANY: Final = msgspec.json.Decoder(Any)
_ITEMS: Final = msgspec.json.Decoder(list[Raw])


class Shortening:
    """A conversation of which a part is to be summarised.

    Attributes:
        question: The chat that asks for the summary, as its answer in one message.
    """

    __slots__ = ("_chat", "_instructions", "_recent", "question")

    def __init__(
        self, chat: chat_pb2.ChatRequest, instructions: Sequence[Any], older: Sequence[str], recent: Sequence[Any]
    ) -> None:
        self._chat = chat
        self._instructions = instructions
        self._recent = recent
        said = _middle_out("\n\n".join(older), _MOST_CHARACTERS)
        self.question = chat_pb2.ChatRequest(
            model=chat.model,
            max_completion_tokens=_SUMMARY_TOKENS,
            messages=[
                content_pb2.Message(role=content_pb2.ROLE_SYSTEM, text=_INSTRUCTIONS),
                content_pb2.Message(role=content_pb2.ROLE_USER, text=said),
            ],
        )

    def with_summary(self, summary: str) -> chat_pb2.ChatRequest:
        """Returns the chat with the summary in place of what it is of."""
        shorter = chat_pb2.ChatRequest()
        shorter.CopyFrom(self._chat)
        text = _LEAD + summary
        if shorter.HasField("messages_json"):
            told = msgspec.json.encode({"role": "user", "content": text})
            shorter.messages_json = b"[" + b",".join([*map(bytes, self._instructions), told, *map(bytes, self._recent)]) + b"]"
        else:
            del shorter.messages[:]
            shorter.messages.extend(
                [*self._instructions, content_pb2.Message(role=content_pb2.ROLE_USER, text=text), *self._recent]
            )
        return shorter


def shortening_of(chat: chat_pb2.ChatRequest) -> Shortening | None:
    """Returns how a chat can be made shorter; None if there is nothing in it that could be summarised."""
    if chat.HasField("messages_json"):
        raws = _ITEMS.decode(chat.messages_json)
        read: list[Any] = [_ANY.decode(raw) for raw in raws]
        return _shortening(chat, raws, lambda number: _role_of(read[number]), lambda number: _text_of(read[number]))
    messages = list(chat.messages)
    return _shortening(
        chat,
        messages,
        lambda number: content_pb2.Role.Name(messages[number].role).removeprefix("ROLE_").lower(),
        lambda number: _text_of_message(messages[number]),
    )


def _shortening(
    chat: chat_pb2.ChatRequest, messages: Sequence[Any], role: Callable[[int], str], text: Callable[[int], str]
) -> Shortening | None:
    instructions = [number for number in range(len(messages)) if role(number) in _INSTRUCTING]
    others = [number for number in range(len(messages)) if role(number) not in _INSTRUCTING]
    start = max(0, len(others) - _ACTIVE_MESSAGES)
    while start > 0 and role(others[start]) == "tool":
        start -= 1  # what a tool has answered stays with the call
    if start == 0:
        return None
    older = [f"{role(number)}: {text(number)}" for number in others[:start]]
    recent = [messages[number] for number in others[start:]]
    return Shortening(chat, [messages[number] for number in instructions], older, recent)


def _role_of(message: Any) -> str:
    return str(message.get("role", "")) if isinstance(message, dict) else ""


def _text_of(message: Any) -> str:
    """Returns what a message says as text; what is no text is shown as JSON, pictures and the like left out."""
    if not isinstance(message, dict):
        return ""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    said = [part if isinstance(part, str) else str(part.get("text", "")) for part in parts if isinstance(part, str | dict)]
    if message.get("tool_calls"):
        said.append(msgspec.json.encode(message["tool_calls"]).decode())
    return "\n".join(one for one in said if one)


def _text_of_message(message: content_pb2.Message) -> str:
    said = [message.text, *(part.text for part in message.parts)]
    said += [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n".join(one for one in said if one)


def _middle_out(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n\n[{len(text) - 2 * half} characters left out]\n\n{text[-half:]}"
