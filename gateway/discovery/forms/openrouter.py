"""OpenRouter's list of models, which says what each costs and can do.

Source: https://openrouter.ai/docs/models (Models API Standard). Prices are US dollars a token, as texts; a router whose price
depends on where it sends a request says -1.
"""

from collections.abc import Mapping
from typing import Any

from gateway.discovery.forms.listing import Able, FoundModel, Page, count, decoded, dollars, entries, inner, page, seconds, texts
from gateway.routing.facts import ModelFacts, Prices

_MILLION = 1_000_000


def parse(body: bytes) -> Page:
    """Returns the models that a body lists.

    Raises:
        UnreadableError: It lists none.
    """
    return page(entries(decoded(body), "data"), _model)


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("id")
    if not isinstance(name, str):
        return None
    able = Able()
    top, architecture = inner(entry, "top_provider"), inner(entry, "architecture")
    reads, writes = texts(architecture.get("input_modalities")), texts(architecture.get("output_modalities"))
    if reads:
        able.says("vision", "image" in reads)
    takes = texts(entry.get("supported_parameters"))
    if takes:
        able.says("tool_calls", "tools" in takes)
        able.says("reasoning", not takes.isdisjoint({"reasoning", "include_reasoning", "reasoning_effort"}))
    facts = ModelFacts(
        context_window=count(top.get("context_length"), entry.get("context_length")),
        max_tokens=count(top.get("max_completion_tokens")),
        prices=_prices(inner(entry, "pricing")),
        created=seconds(entry.get("created")),
        chats="text" in writes if writes else None,
    )
    return FoundModel(name, facts, frozenset(able.can), frozenset(able.cannot))


def _prices(pricing: Mapping[str, Any]) -> Prices | None:
    read, written = dollars(pricing.get("prompt"), _MILLION), dollars(pricing.get("completion"), _MILLION)
    if read is None or written is None:
        return None
    cached, kept = dollars(pricing.get("input_cache_read"), _MILLION), dollars(pricing.get("input_cache_write"), _MILLION)
    return Prices(read, written, cached, kept)
