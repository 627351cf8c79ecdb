"""OpenAI's list of models, with what other vendors of the same API add to its entries.

Sources: https://platform.openai.com/docs/api-reference/models/list; of the additions, the references of Groq (`context_window`,
`max_completion_tokens`), Mistral (`max_context_length`, `capabilities`), Moonshot (`context_length`, `supports_image_in`), Together
(a bare list, `type`), SambaNova (`pricing` a token, as texts), vLLM (`max_model_len`) and LM Studio (`max_context_length`, `type`).
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.discovery.forms.listing import Able, FoundModel, Page, count, decoded, dollars, entries, inner, page, seconds
from gateway.routing.facts import ModelFacts, Prices

_MILLION = 1_000_000

_FLAGS: Final[Mapping[str, str]] = {
    "function_calling": "tool_calls",
    "reasoning": "reasoning",
    "supports_image_in": "vision",
    "supports_reasoning": "reasoning",
    "vision": "vision",
}
"""Which capability a flag stands for, wherever a vendor puts it."""

_OTHERS: Final[Mapping[str, str]] = {
    "audio": "audio",
    "embedding": "embeddings",
    "embeddings": "embeddings",
    "image": "images",
    "moderation": "moderations",
    "rerank": "rerank",
    "transcribe": "audio",
}
"""Types of models that cannot be talked with, and what they are for."""


def parse(body: bytes) -> Page:
    """Returns the models that a body lists.

    Raises:
        UnreadableError: It lists none.
    """
    content = decoded(body)
    return page(content if isinstance(content, list) else entries(content, "data"), _model)


def _model(entry: Mapping[str, Any]) -> FoundModel | None:
    name = entry.get("id")
    if not isinstance(name, str):
        return None
    able = Able()
    said = inner(entry, "capabilities")
    for flag, capability in _FLAGS.items():
        able.says(capability, said.get(flag, entry.get(flag)))
    chats = said.get("completion_chat")
    kind = entry.get("type")
    if isinstance(kind, str) and kind in _OTHERS:
        chats = False
        able.can.add(_OTHERS[kind])
    elif kind in {"chat", "llm", "vlm"}:
        chats = True
    facts = ModelFacts(
        context_window=count(*map(entry.get, ("context_window", "context_length", "max_context_length", "max_model_len"))),
        max_tokens=count(*map(entry.get, ("max_completion_tokens", "max_output_tokens", "max_output_length"))),
        prices=_prices(inner(entry, "pricing")),
        created=seconds(entry.get("created")),
        chats=chats if isinstance(chats, bool) else None,
    )
    return FoundModel(name, facts, frozenset(able.can), frozenset(able.cannot))


def _prices(pricing: Mapping[str, Any]) -> Prices | None:
    """Returns prices that are texts, and so a token's. Numbers are left alone, since vendors do not agree on what they count."""
    prompt, completion = pricing.get("prompt"), pricing.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return None
    read, written = dollars(prompt, _MILLION), dollars(completion, _MILLION)
    return None if read is None or written is None else Prices(read, written)
