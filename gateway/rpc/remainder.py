"""What is left of a stream of requests that is refused before its end.

Over a network, a client that still writes into a call that has ended may not learn why: its transport tells it of the broken write,
and the status is lost. So what it has left to say is passed over first, as far as that is worth the while: `gateway.rpc.edge` does
so.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

_MOST_BYTES: Final = 64 * 1024 * 1024
_SILENCE_SECONDS: Final = 0.1
"""How long a client may be silent before it is taken to wait for an answer."""


async def pass_over(requests: AsyncIterator[Any]) -> None:
    """Reads what is left of a stream of requests, until its end, a silence, or a bounded amount."""
    passed_over = 0
    while passed_over <= _MOST_BYTES:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                request = await anext(requests, None)
        except (TimeoutError, asyncio.InvalidStateError):
            return
        if request is None:
            return
        passed_over += request.ByteSize()
