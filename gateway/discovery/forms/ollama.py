"""Ollama's list of local models, and what it shows of one.

Source: https://docs.ollama.com/api (tags, show).
"""

from collections.abc import Mapping
from typing import Any

from gateway.discovery.forms.listing import (
    Able,
    FoundModel,
    Page,
    UnreadableError,
    count,
    decoded,
    entries,
    inner,
    page,
    seconds,
    texts,
)
from gateway.routing.facts import ModelFacts


def parse(body: bytes) -> Page:
    """Returns the models that a body lists.

    Raises:
        UnreadableError: It lists none.
    """
    return page(entries(decoded(body), "models"), _model)


def shown(model: FoundModel, body: bytes) -> FoundModel:
    """Returns a model with what Ollama shows of it; as it was, if that cannot be read."""
    try:
        content = decoded(body)
    except UnreadableError:
        return model
    if not isinstance(content, dict):
        return model
    able, said, info = Able(), texts(content.get("capabilities")), inner(content, "model_info")
    if said:
        for theirs, ours in (("tools", "tool_calls"), ("vision", "vision"), ("thinking", "reasoning"), ("embedding", "embeddings")):
            able.says(ours, theirs in said)
    architecture = info.get("general.architecture")
    facts = ModelFacts(
        context_window=count(info.get(f"{architecture}.context_length")),
        created=model.facts.created,
        chats="completion" in said if said else None,
    )
    return FoundModel(model.id, facts, frozenset(able.can), frozenset(able.cannot))


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("model") or entry.get("name")
    return FoundModel(name, ModelFacts(created=seconds(entry.get("modified_at")))) if isinstance(name, str) else None
