"""Gemini's own list of models, in pages; and the shorter one of its OpenAI-compatible interface.

Sources: https://ai.google.dev/api/models and https://ai.google.dev/gemini-api/docs/openai. Either puts `models/` before a name.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.discovery.forms import openai
from gateway.discovery.forms.listing import Able, FoundModel, Page, count, decoded, entries, page, texts
from gateway.routing.facts import ModelFacts

_PREFIX = "models/"


def parse(body: bytes) -> Page:
    """Returns the models that a body lists, in either form.

    Raises:
        UnreadableError: It lists none.
    """
    content = decoded(body)
    if isinstance(content, dict) and "models" in content:
        return page(entries(content, "models"), _model, content.get("nextPageToken"))
    compatible = openai.parse(body)
    return replace(
        compatible, models=tuple(replace(model, id=model.id.removeprefix(_PREFIX) or model.id) for model in compatible.models)
    )


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("name")
    if not isinstance(name, str):
        return None
    able, methods = Able(), texts(entry.get("supportedGenerationMethods"))
    chats = "generateContent" in methods if methods else None
    if not methods.isdisjoint({"embedContent", "embedText"}):
        able.can.add("embeddings")
    if chats is False:
        able.cannot |= {"tool_calls", "vision"}
    thinks = entry.get("thinking")
    if thinks is not None or chats is not None:  # which models say that think, and leave out that do not
        able.says("reasoning", thinks is True)
    facts = ModelFacts(
        context_window=count(entry.get("inputTokenLimit")), max_tokens=count(entry.get("outputTokenLimit")), chats=chats
    )
    return FoundModel(name.removeprefix(_PREFIX), facts, frozenset(able.can), frozenset(able.cannot))
