"""How the routes of ModelsService read their queries and write their answers: in the dialect of the client that asks."""

from collections.abc import Iterable, Mapping

from twinspan.v1 import models_pb2

from bridge.call import Call
from bridge.dialects import models
from bridge.transcoding import Reader, Renderer


def _query(call: Call) -> Iterable[tuple[str, str]]:
    """Gives the query; Anthropic's clients call the size of a page its limit."""
    for name, value in call.http.query.items():
        yield "page_size" if name == "limit" and _is_anthropic(call) else name, value


def _list(call: Call, response: models_pb2.ModelsServiceListResponse) -> bytes:
    return models.anthropic_list(response) if _is_anthropic(call) else models.openai_list(response)


def _model(call: Call, model: models_pb2.Model) -> bytes:
    return models.anthropic_model(model) if _is_anthropic(call) else models.openai_model(model)


def _is_anthropic(call: Call) -> bool:
    return "anthropic-version" in call.http.headers


RENDERERS: Mapping[str, Renderer] = {"ModelsServiceListResponse": _list, "Model": _model}
"""Writers of responses, by message name."""

READERS: Mapping[str, Reader] = {"ModelsServiceListRequest": _query}
"""Readers of queries, by message name."""
