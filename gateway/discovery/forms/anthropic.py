"""Anthropic's list of models, in pages.

Source: https://platform.claude.com/docs/en/api/models/list, and the types of the official SDK.
"""

from collections.abc import Mapping
from typing import Any

from gateway.discovery.forms.listing import Able, FoundModel, Page, count, decoded, entries, inner, page, seconds
from gateway.routing.facts import ModelFacts


def parse(body: bytes) -> Page:
    """Returns the models that a body lists; those that are retired, of which requests fail, count as dropped.

    Raises:
        UnreadableError: It lists none.
    """
    content = decoded(body)
    return page(entries(content, "data"), _model, content.get("last_id") if content.get("has_more") is True else None)


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("id")
    if not isinstance(name, str) or entry.get("lifecycle") == "retired":
        return None
    able, said = Able(), inner(entry, "capabilities")
    able.says("vision", inner(said, "image_input").get("supported"))
    able.says("reasoning", inner(said, "thinking").get("supported"))
    facts = ModelFacts(
        context_window=count(entry.get("max_input_tokens")),
        max_tokens=count(entry.get("max_tokens")),
        created=seconds(entry.get("created_at")),
        chats=True,
    )
    return FoundModel(name, facts, frozenset(able.can), frozenset(able.cannot))
