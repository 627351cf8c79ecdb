"""What methods have in common that take a form with files and give bytes: AudioService and ImagesService have such."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, closing
from typing import Any

from gateway.exchange import Exchange
from gateway.operations.forms import Form, FormKind, FormOperation
from gateway.rpc.call import RpcCall


async def answer(
    exchange: Exchange, kind: FormKind, requests: AsyncIterator[Any], response: Callable[..., Any], call: RpcCall, most_bytes: int
) -> None:
    """Sends a form on and writes the answer to the caller, in messages of the class `response`.

    Raises:
        GatewayError: There is none, or it broke off.
    """
    with closing(Form((request.piece async for request in requests), kind, most_bytes)) as form:
        await form.begin()
        with await exchange.open(FormOperation(kind, form), call) as attempt:
            await call.announce()
            async with aclosing(attempt.pieces()) as pieces:
                async for piece in pieces:
                    await call.write(response(piece=piece))
