"""The floor of gRPC: a bare `grpc.aio` server that asks nobody and answers what the mock would have answered.

It serves the gateway's own ChatService with messages made before, so that it reads and writes what the gateway reads and writes: an
unary answer of the size of workload W1, and a stream of as many messages as workload W2 has chunks, a piece of text each.
"""

from collections.abc import AsyncIterator

import grpc
from twinspan.v1 import chat_pb2, chat_pb2_grpc, content_pb2

from bench import answers, child
from bench.behaviour import behaviour_of


class Echo(chat_pb2_grpc.ChatServiceServicer):
    """ChatService without a gateway behind it."""

    def __init__(self) -> None:
        """Makes the answers."""
        info = chat_pb2.ResponseInfo(id="chatcmpl-BenchAnswer0001", created=1_760_000_000, model="model-2026-01-01")
        message = content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, text=answers.unary_text())
        choice = chat_pb2.Choice(message=message, finish_reason=content_pb2.FINISH_REASON_STOP)
        self._answer = chat_pb2.CompleteResponse(info=info, choices=[choice])
        self._streams: dict[str, list[chat_pb2.StreamResponse]] = {}

    async def Complete(self, request: chat_pb2.CompleteRequest, context: object) -> chat_pb2.CompleteResponse:  # noqa: ARG002, N802 - gRPC's name and signature
        """Returns the one answer."""
        return self._answer

    async def Stream(self, request: chat_pb2.StreamRequest, context: object) -> AsyncIterator[chat_pb2.StreamResponse]:  # noqa: ARG002, N802 - gRPC's name and signature
        """Yields the answer of the model that is asked for."""
        for message in self._streams.get(request.chat.model) or self._made(request.chat.model):
            yield message

    def _made(self, model: str) -> list[chat_pb2.StreamResponse]:
        behaviour = behaviour_of(model)
        pieces = answers.pieces(behaviour.chunks if behaviour else 0)
        self._streams[model] = [chat_pb2.StreamResponse(events=[chat_pb2.ChatEvent(text=piece)]) for piece in pieces]
        return self._streams[model]


async def _main() -> None:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port(f"{child.HOST}:0")
    await server.start()
    child.ready(grpc_port=port)
    await child.until_stopped()
    await server.stop(grace=None)


if __name__ == "__main__":
    child.run(_main())
