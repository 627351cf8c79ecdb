"""What is known of models in general: prices and context windows, from the data of the package `genai-prices`.

This is the only module that imports it, when a catalogue is first compiled with a provider that it may know: that takes 0.3 s and
12 MB. Nothing is fetched: the package's updater is never started. docs/adr/0011 has the reasons.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from yarl import URL

from gateway.config.vendors import VENDORS
from gateway.discovery.forms.listing import is_name
from gateway.routing.facts import UNKNOWN, ModelFacts, Prices

MOST_LISTED: Final = 500
"""Most models of one provider that are listed from here."""

_NAMES: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "google",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "vertex": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
    "zai": "zai",
}
"""What the package calls the built-in providers that it knows."""


class ModelRegistry:
    """Knows models by their provider's name, or by its address where the name is one of the operator's own."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Makes a registry; nothing is loaded yet.

        Args:
            now: The time, on which some prices depend.
        """
        self._now = now
        self._providers: list[Any] | None = None

    def facts(self, provider: str, address: str, model: str) -> ModelFacts:
        """Returns what is known of a provider's model; takes some 100 µs.

        Args:
            provider: The provider's name.
            address: Where it is.
            model: The model's name there.
        """
        known = self._provider(provider, address)
        found = known.find_model(model, all_providers=self._data()) if known is not None else None
        return UNKNOWN if found is None else self._facts(found)

    def models(self, provider: str, address: str) -> tuple[str, ...]:
        """Returns the models that a vendor is known to have, by name; none where each customer names them otherwise."""
        known = self._provider(provider, address)
        vendor = VENDORS.get(provider)
        if known is None or (vendor is not None and vendor.base_url is None):
            return ()
        return tuple(sorted(model.id for model in known.models if not model.deprecated and is_name(model.id)))[:MOST_LISTED]

    def _provider(self, name: str, address: str) -> Any:
        if not _may_be_known(name, address):
            return None
        theirs = _NAMES.get(name)
        for known in self._data():
            if known.id == theirs if theirs is not None else re.match(known.api_pattern, address):
                return known
        return None

    def _data(self) -> list[Any]:
        if self._providers is None:
            from genai_prices.data import providers  # noqa: PLC0415 (see above)

            self._providers = list(providers)
        return self._providers

    def _facts(self, model: Any) -> ModelFacts:
        return ModelFacts(context_window=model.context_window, prices=_prices(model.get_prices(self._now())))


def _may_be_known(provider: str, address: str) -> bool:
    """Tells whether anything can be known of a provider: not of a machine of one's own, unless it stands in for a vendor."""
    if provider in VENDORS:
        return provider in _NAMES
    host = URL(address).host or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host
    return False


def _prices(price: Any) -> Prices | None:
    """Returns the price of text; None if the model is not paid by it, both ways."""
    parts = [getattr(price, f"{name}_mtok") for name in ("input", "output", "cache_read", "cache_write")]
    if parts[0] is None:
        return None
    starts = sorted({tier.start for part in parts for tier in getattr(part, "tiers", ())})
    return _above(parts, -1, tuple((start, _above(parts, start)) for start in starts))


def _above(parts: list[Any], tokens: int, tiers: tuple[tuple[int, Prices], ...] = ()) -> Prices:
    read, written, cached, kept = (_part(part, tokens) for part in parts)
    return Prices(read or 0.0, written or 0.0, cached, kept, tiers)


def _part(part: Any, tokens: int) -> float | None:
    """Returns what one kind of token costs in requests above so many."""
    if part is None or isinstance(part, Decimal):
        return None if part is None else float(part)
    price = part.base
    for tier in part.tiers:
        if tokens >= tier.start:
            price = tier.price
    return float(price)
