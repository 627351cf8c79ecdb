"""How providers list their models: each vendor's form, and what is no list at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery.forms import anthropic, cohere, gemini, ollama, openai, openrouter
from gateway.discovery.forms.listing import MOST_MODELS, FoundModel, Page, UnreadableError
from gateway.discovery.forms.table import FORMS
from gateway.routing.facts import ModelFacts, Prices


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


def found(name: str, *, can: set[str] | None = None, cannot: set[str] | None = None, **facts: Any) -> FoundModel:
    return FoundModel(name, ModelFacts(**facts), frozenset(can or ()), frozenset(cannot or ()))


OPENAI = [
    ({"id": "gpt-x", "object": "model", "created": 1700000000, "owned_by": "openai"}, found("gpt-x", created=1700000000)),
    (  # Groq
        {"id": "llama", "created": 1, "context_window": 131072, "max_completion_tokens": 32768, "active": True},
        found("llama", created=1, context_window=131072, max_tokens=32768),
    ),
    (  # Mistral
        {
            "id": "pixtral",
            "max_context_length": 131072,
            "capabilities": {"completion_chat": True, "function_calling": True, "vision": True, "reasoning": False},
        },
        found("pixtral", context_window=131072, chats=True, can={"tool_calls", "vision"}, cannot={"reasoning"}),
    ),
    ({"id": "vllm", "max_model_len": 4096}, found("vllm", context_window=4096)),
    (  # Moonshot
        {"id": "kimi", "context_length": 262144, "supports_image_in": False, "supports_reasoning": True},
        found("kimi", context_window=262144, can={"reasoning"}, cannot={"vision"}),
    ),
    (  # Together
        {"id": "bge", "type": "embedding", "context_length": 512, "pricing": {"input": 0.02, "output": 0}},
        found("bge", context_window=512, chats=False, can={"embeddings"}),
    ),
    (  # SambaNova
        {"id": "deep", "pricing": {"prompt": "0.000003", "completion": "0.0000045"}},
        found("deep", prices=Prices(3.0, 4.5)),
    ),
    ({"id": "ms", "created": 1700000000000, "context_length": 10**30}, found("ms")),
    ({"id": "odd", "created": "soon", "context_length": -1, "max_completion_tokens": True, "capabilities": ["x"]}, found("odd")),
]


@pytest.mark.parametrize(("entry", "model"), OPENAI, ids=[entry[1].id for entry in OPENAI])
def test_what_vendors_add_to_openais_form_is_read(entry: dict[str, Any], model: FoundModel) -> None:
    assert openai.parse(body({"object": "list", "data": [entry]})) == Page((model,))
    assert openai.parse(body([entry])) == Page((model,))


def test_openrouter_says_what_its_models_cost_and_can() -> None:
    entry = {
        "id": "anthropic/claude-x",
        "created": 1700000000,
        "context_length": 1_000_000,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003", "request": "0"},
        "top_provider": {"context_length": 200_000, "max_completion_tokens": 64_000, "is_moderated": True},
        "supported_parameters": ["tools", "max_tokens"],
    }
    router = {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}
    painter = {"id": "painter", "architecture": {"input_modalities": ["text"], "output_modalities": ["image"]}}
    assert openrouter.parse(body({"data": [entry, router, painter]})).models == (
        found(
            "anthropic/claude-x",
            created=1700000000,
            context_window=200_000,
            max_tokens=64_000,
            prices=Prices(3.0, 15.0, 0.3),
            chats=True,
            can={"vision", "tool_calls"},
            cannot={"reasoning"},
        ),
        found("openrouter/auto"),
        found("painter", chats=False, cannot={"vision"}),
    )


def test_anthropics_pages_name_what_follows_and_leave_out_what_is_retired() -> None:
    able = {"image_input": {"supported": True}, "thinking": {"supported": False, "types": {}}}
    entry = {
        "type": "model",
        "id": "claude-x",
        "display_name": "Claude X",
        "created_at": "2026-02-17T00:00:00Z",
        "max_input_tokens": 1_000_000,
        "max_tokens": 64_000,
        "capabilities": able,
    }
    page = {"data": [entry, {**entry, "id": "claude-1", "lifecycle": "retired"}], "has_more": True, "last_id": "claude-1"}
    model = found(
        "claude-x",
        created=1771286400,
        context_window=1_000_000,
        max_tokens=64_000,
        chats=True,
        can={"vision"},
        cannot={"reasoning"},
    )
    assert anthropic.parse(body(page)) == Page((model,), dropped=1, next="claude-1")
    assert anthropic.parse(body({**page, "has_more": False})).next == ""


def test_gemini_is_read_in_its_own_form_and_in_openais() -> None:
    models = [
        {
            "name": "models/gemini-x",
            "inputTokenLimit": 1048576,
            "outputTokenLimit": 65536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "thinking": True,
        },
        {"name": "models/embed-x", "inputTokenLimit": 2048, "supportedGenerationMethods": ["embedContent"]},
    ]
    assert gemini.parse(body({"models": models, "nextPageToken": "abc"})) == Page(
        (
            found("gemini-x", context_window=1048576, max_tokens=65536, chats=True, can={"reasoning"}),
            found("embed-x", context_window=2048, chats=False, can={"embeddings"}, cannot={"tool_calls", "vision", "reasoning"}),
        ),
        next="abc",
    )
    compatible = {"object": "list", "data": [{"id": "models/gemini-x", "object": "model", "owned_by": "google"}]}
    assert gemini.parse(body(compatible)) == Page((found("gemini-x"),))


def test_cohere_says_for_which_endpoints_a_model_is() -> None:
    models = [
        {"name": "command", "endpoints": ["chat"], "context_length": 256000.0, "features": ["tools", "vision"]},
        {"name": "rerank", "endpoints": ["rerank"], "context_length": 4096, "features": None},
        {"name": "old", "endpoints": ["chat"], "is_deprecated": True},
    ]
    assert cohere.parse(body({"models": models, "next_page_token": "t"})) == Page(
        (
            found(
                "command",
                context_window=256000,
                chats=True,
                can={"tool_calls", "vision"},
                cannot={"embeddings", "rerank", "reasoning"},
            ),
            found(
                "rerank",
                context_window=4096,
                chats=False,
                can={"rerank"},
                cannot={"embeddings", "tool_calls", "vision", "reasoning"},
            ),
        ),
        dropped=1,
        next="t",
    )


def test_ollama_lists_names_and_shows_the_rest() -> None:
    tags = {"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "modified_at": "2026-02-17T00:00:00Z", "size": 5}]}
    (model,) = ollama.parse(body(tags)).models
    assert model == found("qwen3:8b", created=1771286400)
    show = {
        "capabilities": ["completion", "tools", "thinking"],
        "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
    }
    assert ollama.shown(model, body(show)) == found(
        "qwen3:8b",
        created=1771286400,
        context_window=40960,
        chats=True,
        can={"tool_calls", "reasoning"},
        cannot={"vision", "embeddings"},
    )
    for unreadable in (b"<html>", b"[]"):
        assert ollama.shown(model, unreadable) == model


@pytest.mark.parametrize(
    "name", ["", " ", "a\nb", "a\x00", "\x1b[31mred", "a" * 257, " padded", 7, None, ["a"], {"a": 1}, "\u202eevil"]
)
@pytest.mark.parametrize(
    ("parse", "shape"),
    [
        (openai.parse, lambda name: {"data": [{"id": "good"}, {"id": name}]}),
        (openrouter.parse, lambda name: {"data": [{"id": "good"}, {"id": name}]}),
        (anthropic.parse, lambda name: {"data": [{"id": "good"}, {"id": name}]}),
        (gemini.parse, lambda name: {"models": [{"name": "models/good"}, {"name": name}]}),
        (cohere.parse, lambda name: {"models": [{"name": "good"}, {"name": name}]}),
        (ollama.parse, lambda name: {"models": [{"model": "good"}, {"model": name}]}),
    ],
    ids=["openai", "openrouter", "anthropic", "gemini", "cohere", "ollama"],
)
def test_a_bad_name_is_dropped_and_counted_and_costs_no_other(
    parse: Callable[[bytes], Page], shape: Callable[[Any], Any], name: Any
) -> None:
    page = parse(body(shape(name)))
    assert ([model.id for model in page.models], page.dropped) == (["good"], 1)


def test_a_list_is_bounded_and_names_each_model_once() -> None:
    page = openai.parse(body({"data": [{"id": str(number)} for number in range(MOST_MODELS + 5)]}))
    assert (len(page.models), page.dropped) == (MOST_MODELS, 5)
    page = openai.parse(body({"data": [{"id": "a"}, {"id": "a"}, "a", None]}))
    assert ([model.id for model in page.models], page.dropped) == (["a"], 3)


@pytest.mark.parametrize("style", FORMS)
@pytest.mark.parametrize("content", [b"", b"<html>", b'"text"', b"{}", b'{"data": {}}', b'{"models": 3}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_is_told_from_one_that_is_empty(style: str, content: bytes) -> None:
    with pytest.raises(UnreadableError):
        FORMS[style].parse(content)
    key = "models" if style in {"gemini", "cohere", "ollama"} else "data"
    assert FORMS[style].parse(body({key: []})) == Page(())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("id", "name", "model", "created", "created_at", "modified_at", "pricing", "capabilities", "architecture", "top_provider"),
        *("context_length", "max_tokens", "supported_parameters", "endpoints", "features", "supportedGenerationMethods", "type"),
    ]
)


@given(st.sampled_from(sorted(FORMS)), st.lists(st.dictionaries(FIELDS, JSON, max_size=6), max_size=4))
def test_no_entry_breaks_a_parser(style: str, entries: list[dict[str, Any]]) -> None:
    content = json.dumps({"data": [*entries, {"id": "last"}], "models": [*entries, {"name": "last", "model": "last"}]})
    try:
        page = FORMS[style].parse(content.encode())
    except UnreadableError:
        assert "NaN" in content or "Infinity" in content or "\\ud" in content
        return
    assert any(model.id == "last" for model in page.models)
