"""The load generator for gRPC, a process of its own: calls of ChatService over one channel, each followed by the next.

It stands on `grpc.aio`, as callers in Python do, and so costs about as much as the server it calls. That does not distort the
server's CPU a call, but with one core for callers the server is not always busy, and an idle server's calls cost a little more
than a busy one's.
"""

import asyncio
import gc
import time

import grpc
from twinspan.v1 import chat_pb2, chat_pb2_grpc, content_pb2

from bench import answers, child, phase
from bench.phase import Outcome, Phase
from bench.tally import Tally

_CALL_SECONDS = 30.0
_MOST_FAILURES = 200


class Calls:
    """Callers that each begin the next call once the last one is complete."""

    def __init__(self, wanted: Phase) -> None:
        """Prepares a phase; `run` carries it out."""
        self._phase = wanted
        self._tally = Tally(wanted)
        self._chat = _chat(wanted.model)
        self._metadata = tuple(wanted.headers.items())
        self._going = True
        self._unary_text = answers.unary_text()
        self._stream_characters = len("".join(answers.pieces(wanted.chunks)))

    async def run(self) -> Outcome:
        """Warms up, measures, lets the calls under way come to their end, and returns what came of it."""
        # A pool of its own, or channels of successive phases would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"{child.HOST}:{self._phase.port}", options=options) as channel:
            self._stub = chat_pb2_grpc.ChatServiceStub(channel)
            async with asyncio.TaskGroup() as callers:
                for _ in range(self._phase.connections):
                    callers.create_task(self._call_again_and_again())
                await asyncio.sleep(self._phase.warmup_seconds)
                self._tally.start()
                await asyncio.sleep(self._phase.seconds)
                self._tally.stop()
                self._going = False
        return self._tally.outcome()

    async def _call_again_and_again(self) -> None:
        call = self._stream if self._phase.chunks else self._complete
        while self._going and self._tally.failed < _MOST_FAILURES:
            try:
                fault = await call()
            except grpc.aio.AioRpcError as error:
                fault = f"{error.code().name}: {error.details()}"
            if fault is not None:
                self._tally.failure(fault)

    async def _complete(self) -> str | None:
        started = time.perf_counter()
        answer = await self._stub.Complete(
            chat_pb2.CompleteRequest(chat=self._chat), metadata=self._metadata, timeout=_CALL_SECONDS
        )
        latency = time.perf_counter() - started
        if answer.choices[0].message.text != self._unary_text:
            return "the answer is not whole"
        self._tally.success(latency, latency)
        return None

    async def _stream(self) -> str | None:
        started = time.perf_counter()
        first = 0.0
        messages = characters = 0
        call = self._stub.Stream(chat_pb2.StreamRequest(chat=self._chat), metadata=self._metadata, timeout=_CALL_SECONDS)
        async for message in call:
            first = first or time.perf_counter()
            messages += 1
            for event in message.events:
                characters += len(event.text) or sum(len(choice.text) for choice in event.chunk.choices)
        if characters != self._stream_characters:
            return f"{characters} characters where {self._stream_characters} were sent"
        self._tally.success(time.perf_counter() - started, first - started, messages=messages)
        return None


def _chat(model: str) -> chat_pb2.ChatRequest:
    """The conversation of `small_body`, in the stubs' form."""
    messages = [
        content_pb2.Message(role=content_pb2.ROLE_SYSTEM, text="Be brief."),
        content_pb2.Message(role=content_pb2.ROLE_USER, text=answers.text(60)),
    ]
    return chat_pb2.ChatRequest(model=model, messages=messages, temperature=0.7)


async def measure(wanted: Phase) -> Outcome:
    """Carries out one phase.

    Raises:
        ProcessLookupError: A process to be watched is gone.
    """
    return await Calls(wanted).run()


if __name__ == "__main__":
    gc.freeze()
    child.run(phase.serve(measure))
