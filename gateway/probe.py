"""Asks each provider for its models, so that an operator learns of a wrong address or credential before a user does."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.discovery.fetch import list_models
from gateway.discovery.forms.table import FORMS
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.sender import Sender


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking one provider.

    Attributes:
        provider: Its name.
        ok: Whether it answered as it should.
        message: What it answered, in a sentence.
    """

    provider: str
    ok: bool
    message: str


async def probe(providers: Iterable[Provider]) -> list[Finding]:
    """Asks all providers at once; takes 10 seconds at most."""
    async with Sender() as sender:
        return list(await asyncio.gather(*(_ask(provider, sender) for provider in providers)))


async def _ask(provider: Provider, sender: Sender) -> Finding:
    try:
        listing = await list_models(provider, sender)
    except GatewayError as error:
        return Finding(provider.name, ok=False, message=error.message)
    url = FORMS[provider.listing_style].address(provider).partition("?")[0]
    count = len(listing.models) + listing.dropped
    return Finding(provider.name, ok=True, message=f"{url} lists {count} models.")
