"""What is kept of responses: who made each, for whom, and of the gateway's own all that it takes to give it again and to go on.

Above is the desk. Below is the ledger, in which a response is an entry like a file or a batch.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from gateway.backends.ledger import Entry, Ledger
from gateway.responses.operation import Answered

KIND: Final = "response"
OWN: Final = ""
"""The keeper of what the gateway has written itself."""

_KEEP_SECONDS: Final = 30 * 86_400
"""How long responses are kept; OpenAI keeps them as long: https://platform.openai.com/docs/guides/your-data."""

_SWEEP_SECONDS: Final = 600.0


class Kept(msgspec.Struct, omit_defaults=True):
    """What is kept of a response.

    Attributes:
        model: The model's name at the provider.
        agent: The agent through which it was asked; empty if the model was named itself.
        account: The account whose credential was used; empty if there is but one.
        previous: The id of the response that it went on from; None if it began a conversation.
        response: The whole response, if it is the gateway's own.
        items: The items of its own input, if it is the gateway's own.
    """

    model: str = ""
    agent: str = ""
    account: str = ""
    previous: str | None = None
    response: Raw = Raw(b"null")
    items: list[Raw] = []


_KEPT: Final = msgspec.json.Decoder(Kept)


class KeptResponses:
    """Keeps responses."""

    def __init__(self, entries: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        """Keeps them in a ledger.

        Args:
            entries: The ledger.
            clock: Seconds since 1970.
        """
        self._entries = entries
        self._clock = clock
        self._sweep_at = 0.0

    async def keep(self, id_: str, owner: str, provider: str, kept: Kept) -> None:
        """Keeps a response, which is on disk when this returns.

        Args:
            id_: Its id.
            owner: The name of the key that asked for it.
            provider: Who made it; `OWN` if the gateway wrote it.
            kept: What is kept of it.
        """
        now = self._clock()
        await self._entries.note(Entry(KIND, provider, id_, owner, "", int(now) + _KEEP_SECONDS, msgspec.json.encode(kept)))
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            await self._entries.forget_expired(KIND, int(now))

    async def keep_own(self, id_: str, owner: str, answered: Answered, previous: str | None) -> None:
        """Keeps a response that the gateway wrote itself, whole."""
        target = answered.target
        items = [Raw(item) for item in answered.input_items]
        await self.keep(id_, owner, OWN, Kept(target.model, target.agent, "", previous, Raw(answered.response), items))

    async def find(self, id_: str, owner: str | None) -> tuple[str, Kept] | None:
        """Returns who made a response, and what is kept of it; None if there is none, or it is somebody else's.

        Args:
            id_: Its id.
            owner: Whose it must be; None for anyone's.
        """
        entry = await self._entries.find(KIND, id_, owner)
        if entry is None or (entry.expires_at is not None and entry.expires_at <= self._clock()):
            return None
        return entry.provider, _KEPT.decode(entry.body)

    async def forget(self, id_: str, provider: str) -> None:
        """Forgets a response."""
        await self._entries.forget(KIND, provider, id_)
