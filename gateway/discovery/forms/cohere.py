"""Cohere's own list of models, in pages; its OpenAI-compatible interface has none.

Source: https://docs.cohere.com/reference/list-models.
"""

from collections.abc import Mapping
from typing import Any

from gateway.discovery.forms.listing import Able, FoundModel, Page, count, decoded, entries, page, texts
from gateway.routing.facts import ModelFacts


def parse(body: bytes) -> Page:
    """Returns the models that a body lists; those that it calls deprecated count as dropped.

    Raises:
        UnreadableError: It lists none.
    """
    content = decoded(body)
    return page(entries(content, "models"), _model, content.get("next_page_token"))


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("name")
    if not isinstance(name, str) or entry.get("is_deprecated") is True:
        return None
    able, serves, features = Able(), texts(entry.get("endpoints")), texts(entry.get("features"))
    chats = "chat" in serves if serves else None
    for endpoint, capability in (("embed", "embeddings"), ("rerank", "rerank")):
        if serves:
            able.says(capability, endpoint in serves)
    if features or chats is False:
        able.says("tool_calls", not features.isdisjoint({"tools", "strict_tools"}))
        able.says("vision", "vision" in features)
        able.says("reasoning", "reasoning" in features)
    facts = ModelFacts(context_window=count(entry.get("context_length")), chats=chats)
    return FoundModel(name, facts, frozenset(able.can), frozenset(able.cannot))
