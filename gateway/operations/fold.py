"""Folds a streamed answer into a whole one, so that the two differ in form alone."""

from typing import Any

import msgspec
from twinspan.v1 import chat_pb2, content_pb2


class Fold:
    """Gathers the events of one stream, in order, into a `CompleteResponse`."""

    __slots__ = ("_choices", "_response")

    def __init__(self) -> None:
        self._response = chat_pb2.CompleteResponse()
        self._choices: dict[int, _Choice] = {}

    def add(self, response: chat_pb2.StreamResponse) -> None:
        """Adds the events of one message of the stream."""
        for event in response.events:
            if event.HasField("text"):
                self._choice(0).texts.append(event.text)
            else:
                self._add_chunk(event.chunk)

    def result(self) -> chat_pb2.CompleteResponse:
        """Returns the whole answer; its choices come by rising index."""
        for index in sorted(self._choices):
            self._choices[index].finish(self._response.choices.add(index=index))
        return self._response

    def _choice(self, index: int) -> "_Choice":
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _Choice()
        return found

    def _add_chunk(self, chunk: chat_pb2.Chunk) -> None:
        if chunk.HasField("info"):
            self._response.info.MergeFrom(chunk.info)
        if chunk.HasField("usage"):
            self._response.usage.CopyFrom(chunk.usage)
        if chunk.extra:
            self._response.extra.update(chunk.extra)
        for delta in chunk.choices:
            self._choice(delta.index).add(delta)


class _Choice:
    """What one choice has said so far. Texts are kept as pieces, so that adding one costs the same however long the answer is."""

    __slots__ = ("arguments", "calls", "choice", "function_arguments", "logprobs", "reasonings", "refusals", "texts")

    def __init__(self) -> None:
        self.choice = chat_pb2.Choice()
        self.texts: list[str] = []
        self.reasonings: list[str] = []
        self.refusals: list[str] = []
        self.calls: dict[int, content_pb2.ToolCall] = {}
        self.arguments: dict[int, list[str]] = {}
        self.function_arguments: list[str] = []
        self.logprobs: list[str] = []

    def add(self, delta: chat_pb2.ChoiceDelta) -> None:
        message = self.choice.message
        if delta.role:
            message.role = delta.role
        if delta.HasField("text"):
            self.texts.append(delta.text)
        if delta.HasField("reasoning"):
            self.reasonings.append(delta.reasoning)
        if delta.HasField("refusal"):
            self.refusals.append(delta.refusal)
        for call in delta.tool_calls:
            self._add_call(call)
        if delta.HasField("function_call"):
            self._add_function_call(delta.function_call)
        if delta.finish_reason:
            self.choice.finish_reason = delta.finish_reason
        if delta.HasField("logprobs"):
            self.logprobs.append(delta.logprobs)
        if delta.extra:
            self.choice.extra.update(delta.extra)
        if delta.delta_extra:
            message.extra.update(delta.delta_extra)

    def finish(self, choice: chat_pb2.Choice) -> None:
        """Writes the choice into `choice`, whose index is set."""
        index = choice.index
        choice.MergeFrom(self.choice)
        choice.index = index
        message = choice.message
        if not message.role:
            message.role = content_pb2.ROLE_ASSISTANT
        if self.texts:
            message.text = "".join(self.texts)
        if self.reasonings:
            message.reasoning = "".join(self.reasonings)
        if self.refusals:
            message.refusal = "".join(self.refusals)
        for number in sorted(self.calls):
            call = self.calls[number]
            call.arguments = "".join(self.arguments[number])
            message.tool_calls.append(call)
        if self.logprobs:
            choice.logprobs = self.logprobs[0] if len(self.logprobs) == 1 else _joined(self.logprobs)
        if self.function_arguments:
            message.function_call.arguments = "".join(self.function_arguments)

    def _add_call(self, delta: content_pb2.ToolCallDelta) -> None:
        call = self.calls.get(delta.index)
        if call is None:
            call = self.calls[delta.index] = content_pb2.ToolCall()
            self.arguments[delta.index] = []
        if delta.HasField("id"):
            call.id = delta.id
        if delta.HasField("type") and delta.type != "function":
            call.type = delta.type
        if delta.HasField("name"):
            call.name = delta.name
        if delta.HasField("arguments"):
            self.arguments[delta.index].append(delta.arguments)
        if delta.extra:
            call.extra.update(delta.extra)
        if delta.function_extra:
            call.function_extra.update(delta.function_extra)

    def _add_function_call(self, delta: content_pb2.FunctionCall) -> None:
        call = self.choice.message.function_call
        call.SetInParent()
        if delta.HasField("name"):
            call.name = delta.name
        if delta.HasField("arguments"):
            self.function_arguments.append(delta.arguments)
        if delta.extra:
            call.extra.update(delta.extra)


def _joined(pieces: list[str]) -> str:
    """Returns the log probabilities of several pieces as one: their arrays are joined, field by field."""
    joined: dict[str, Any] = {}
    for piece in pieces:
        for name, value in msgspec.json.decode(piece).items():
            if isinstance(value, list) and isinstance(joined.get(name), list):
                joined[name].extend(value)
            elif value is not None or name not in joined:
                joined[name] = value
    return msgspec.json.encode(joined).decode()
