"""The catalogue as OpenAI's and as Anthropic's clients read it.

Sources: https://platform.openai.com/docs/api-reference/models and https://platform.claude.com/docs/en/api/models/list.
"""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from twinspan.v1 import models_pb2

_MAYBE_KNOWN: Final = ("context_window", "max_tokens", "input_cost_per_1m", "output_cost_per_1m", "cached_input_cost_per_1m")


def openai_list(response: models_pb2.ModelsServiceListResponse) -> bytes:
    """Returns OpenAI's list, with what this gateway knows of each model beside OpenAI's own fields."""
    fields: dict[str, Any] = {"object": "list", "data": [_openai(model) for model in response.models]}
    if response.next_page_token:
        fields["next_page_token"] = response.next_page_token
    return orjson.dumps(fields)


def openai_model(model: models_pb2.Model) -> bytes:
    """Returns one model as OpenAI's clients read it."""
    return orjson.dumps(_openai(model))


def anthropic_list(response: models_pb2.ModelsServiceListResponse) -> bytes:
    """Returns Anthropic's list."""
    models = [_anthropic(model) for model in response.models]
    return orjson.dumps(
        {
            "data": models,
            "has_more": response.has_more,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
    )


def anthropic_model(model: models_pb2.Model) -> bytes:
    """Returns one model as Anthropic's clients read it."""
    return orjson.dumps(_anthropic(model))


def _openai(model: models_pb2.Model) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
    for name in _MAYBE_KNOWN:
        fields[name] = getattr(model, name) if model.HasField(name) else None
    fields["source"] = models_pb2.ModelSource.Name(model.source).removeprefix("MODEL_SOURCE_").lower()
    fields["capabilities"] = list(model.capabilities)
    return fields


def _anthropic(model: models_pb2.Model) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": created,
        "lifecycle": "active",
        "max_input_tokens": model.context_window if model.HasField("context_window") else None,
        "max_tokens": model.max_tokens if model.HasField("max_tokens") else None,
    }
