"""ChatService: chats, whole or streamed."""

from twinspan.v1 import chat_pb2

from gateway.exchange import Exchange
from gateway.operations import chat
from gateway.operations.chat import Chat, Form
from gateway.rpc.call import RpcCall


class ChatService:
    """Serves `twinspan.v1.ChatService`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Complete(self, request: chat_pb2.CompleteRequest, call: RpcCall) -> chat_pb2.CompleteResponse:  # noqa: N802 (the RPC's name)
        """Answers in one message."""
        return await chat.complete(self._exchange, request.chat, call, as_text=request.accept_openai_json)

    async def Stream(self, request: chat_pb2.StreamRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Answers as the model speaks."""
        with await self._exchange.open(Chat(request.chat, Form.STREAM), call) as answer:
            await call.announce()
            await call.write(answer.first)
            while (response := await answer.next()) is not None:
                await call.write(response)
