"""Providers and targets for tests of routing."""

from typing import Any

from yarl import URL

from gateway.providers.provider import Provider
from gateway.providers.timeouts import Timeouts
from gateway.routing.facts import ModelFacts, Prices
from gateway.routing.target import Target


def provider(name: str, *models: str, **fields: Any) -> Provider:
    url = f"http://{name}.example/chat/completions"
    return Provider(name, f"http://{name}.example", URL(url), url, {}, models or None, Timeouts(1, 1, 1, 1), **fields)


def target(name: str, *, price: float | None = None, window: int | None = None, **fields: Any) -> Target:
    """Returns a target of the agent `smart`, whose provider and model have one name; `price` is for a million tokens."""
    facts = ModelFacts(context_window=window, prices=None if price is None else Prices(price, price))
    return Target(provider(name, name), name, "smart", facts, **fields)
