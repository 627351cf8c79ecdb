"""Asks each provider for its models, so that an operator learns of a wrong address or credential before a user does."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts

_TIMEOUTS = Timeouts(connect=5.0, first_token=10.0, idle=10.0, total=10.0)
_MOST_BYTES = 10 * 1024 * 1024


class _Listing(msgspec.Struct):
    data: list[object]


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
    url = provider.url("/models")
    headers = {name: value for name, value in provider.headers.items() if name != "Content-Type"}
    request = OutboundRequest(url, headers, b"", _TIMEOUTS, provider.name, "", method="GET")
    try:
        answer = await sender.send(request)
        body = await answer.read(_MOST_BYTES)
    except GatewayError as error:
        return Finding(provider.name, ok=False, message=provider.cleansed(error.message))
    if answer.status in (401, 403):
        return Finding(provider.name, ok=False, message=f"{url} does not accept the credential (HTTP {answer.status}).")
    if answer.status != 200:
        return Finding(provider.name, ok=False, message=f"{url} answered with HTTP {answer.status}. Check base_url.")
    try:
        count = len(msgspec.json.decode(body, type=_Listing).data)
    except msgspec.MsgspecError:
        return Finding(provider.name, ok=False, message=f"{url} answered with something that is no list of models. Check base_url.")
    return Finding(provider.name, ok=True, message=f"{url} lists {count} models.")
