"""Agents that are made of the models there are."""

from typing import Any

import pytest

from gateway.compilation import compile_catalogue
from gateway.config.schema import Config
from gateway.config.snapshot import Snapshot
from gateway.discovery.knowledge import Knowledge
from gateway.discovery.registry import ModelRegistry
from gateway.routing.catalogue import Catalogue

MODELS: dict[str, dict[str, Any]] = {
    "dear": {
        "context_window": 200_000,
        "input_cost_per_1m": 15,
        "output_cost_per_1m": 75,
        "capabilities": ["tool_calls", "reasoning"],
    },
    "middling": {
        "context_window": 400_000,
        "input_cost_per_1m": 3,
        "output_cost_per_1m": 15,
        "capabilities": ["tool_calls", "vision"],
    },
    "cheap": {"context_window": 1_000_000, "input_cost_per_1m": 0.1, "output_cost_per_1m": 0.4, "capabilities": ["tool_calls"]},
    "coder": {"context_window": 128_000, "input_cost_per_1m": 0.3, "output_cost_per_1m": 1.2, "capabilities": []},
    "unknown-mini": {"capabilities": []},
    "unknown": {"capabilities": []},
    "text-embedding-1": {"input_cost_per_1m": 0.01, "capabilities": ["embeddings"]},
    "cheap-2026-01-01": {"input_cost_per_1m": 0.1, "output_cost_per_1m": 0.4, "capabilities": ["tool_calls"]},
}
ACME = {"base_url": "http://127.0.0.1:9/v1", "models": list(MODELS), "model_info": MODELS}


def compiled(settings: dict[str, Any] | None = None, **sections: Any) -> Catalogue:
    discovery = {"auto_agents": True, "auto_agents_config": settings or {}}
    config = Config.model_validate({"providers": {"acme": ACME}, "discovery": discovery, **sections})
    return compile_catalogue(Snapshot(config), None, "twinspan/test")


def models(catalogue: Catalogue) -> dict[str, list[str]]:
    return {name: [target.model for target in agent.targets] for name, agent in catalogue.agents.items()}


def test_each_agent_has_the_models_that_fit_its_purpose_the_best_first() -> None:
    assert models(compiled({"max_targets": 3})) == {
        "fast": ["cheap", "coder", "middling"],
        "reasoning": ["dear"],
        "vision": ["middling"],
        "tools": ["middling", "dear", "cheap"],
        "large": ["cheap", "middling", "dear"],
        "balanced": ["middling", "coder", "dear"],
        "coding": ["coder", "dear", "middling"],
    }


def test_a_model_whose_price_nobody_knows_counts_as_fast_by_its_name_alone() -> None:
    assert models(compiled({"agents": ["fast"], "max_targets": 64}))["fast"] == [
        "cheap",
        "coder",
        "middling",
        "dear",
        "unknown-mini",
    ]


def test_the_configuration_says_which_are_made_and_how() -> None:
    overrides = {
        "tools": {"model_rgx": "ch", "strategy": "round-robin"},
        "large": {"max_targets": 1},
        "fast": {"provider_rgx": "nobody"},
    }
    catalogue = compiled({"agents": ["tools", "large", "fast"], "prefix": "auto-", "overrides": overrides})
    assert models(catalogue) == {"auto-tools": ["cheap"], "auto-large": ["cheap"]}
    assert catalogue.agents["auto-tools"].strategy == "round-robin"
    assert [target.agent for target in catalogue.agents["auto-tools"].targets] == ["auto-tools"]


def test_configured_agents_and_models_keep_their_names() -> None:
    acme = {**ACME, "models": ["vision", "dear", "middling"]}
    catalogue = compiled(providers={"acme": acme}, agents={"tools": {"models": ["vision"]}})
    assert models(catalogue)["tools"] == ["vision"]
    assert "vision" not in catalogue.agents
    assert [listing.id for listing in catalogue.listings()][:2] == ["tools", "fast"]


def test_what_only_the_provider_can_comes_after_what_a_model_says_of_itself() -> None:
    plain: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "models": ["a", "b", "whisper-1"], "capabilities": ["vision"]}
    plain["model_info"] = {"b": {"capabilities": ["vision"]}}
    assert models(compiled({"agents": ["vision"]}, providers={"acme": plain}))["vision"] == ["b", "a"]


@pytest.mark.parametrize(
    "name", ["gpt-4o-audio-preview", "o1-search", "rerank-v3.5", "dall-e-3", "tts-1", "llama-guard-4", "veo-3"]
)
def test_what_cannot_be_talked_with_is_in_none(name: str) -> None:
    acme = {"base_url": "http://127.0.0.1:9/v1", "models": [name]}
    assert models(compiled(providers={"acme": acme})) == {}


def test_what_the_registry_alone_knows_is_in_none() -> None:
    discovery = {"auto_agents": True}
    config = Config.model_validate({"providers": {"openai": {"api_key": "k"}}, "discovery": discovery})
    catalogue = compile_catalogue(Snapshot(config), None, "twinspan/test", Knowledge(ModelRegistry()))
    assert (catalogue.listing("gpt-4o") is not None, models(catalogue)) == (True, {})


def test_without_the_switch_none_are_made() -> None:
    config = Config.model_validate({"providers": {"acme": ACME}})
    assert compile_catalogue(Snapshot(config), None, "twinspan/test").agents == {}
