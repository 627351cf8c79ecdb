"""Discovery: asks all providers for their models, and keeps what each said last.

What it finds goes into the next catalogue; when that is made is the caller's business. A provider that fails keeps its last list.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.discovery.fetch import Listing, list_models
from gateway.discovery.forms.listing import FoundModel
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.sender import Sender
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    address: str
    listing: Listing


class Discovery:
    """Knows which models providers say they have."""

    def __init__(self, sender: Sender, recorder: Recorder) -> None:
        """Makes one that knows nothing yet.

        Args:
            sender: Asks.
            recorder: Counts.
        """
        self._sender = sender
        self._recorder = recorder
        self._kept: dict[str, _Kept] = {}

    def found(self, providers: Mapping[str, str]) -> dict[str, tuple[FoundModel, ...]]:
        """Returns the last list of each of these providers that gave one.

        Args:
            providers: Their addresses, by name: what was found elsewhere is not found here.
        """
        return {
            name: kept.listing.models
            for name, address in providers.items()
            if (kept := self._kept.get(name)) is not None and kept.address == address
        }

    async def refresh(self, providers: Iterable[Provider]) -> None:
        """Asks all providers at once; takes 10 seconds at most. Lists of providers that are not among them are dropped."""
        providers = list(providers)
        listings = await asyncio.gather(*(self._ask(provider) for provider in providers))
        kept = {provider.name: self._kept[provider.name] for provider in providers if provider.name in self._kept}
        for provider, listing in zip(providers, listings, strict=True):
            if listing is not None:
                kept[provider.name] = _Kept(provider.url_text, listing)
        self._kept = kept

    async def _ask(self, provider: Provider) -> Listing | None:
        try:
            listing = await list_models(provider, self._sender)
        except GatewayError as error:
            self._recorder.models_discovered(provider.name, error.kind_name)
            _log.warning(
                "The models of the provider '%s' were not found out; what was known goes on. %s", provider.name, error.message
            )
            return None
        except Exception:  # noqa: BLE001 (whatever an answer breaks, the other providers' lists are of use)
            self._recorder.panicked()
            self._recorder.models_discovered(provider.name, "internal_error")
            _log.exception("The models of the provider '%s' were not found out.", provider.name)
            return None
        self._recorder.models_discovered(provider.name, "ok")
        if listing.dropped:
            count, dropped = len(listing.models), listing.dropped
            _log.info("The provider '%s' lists %d models; %d further entries cannot be used.", provider.name, count, dropped)
        return listing
