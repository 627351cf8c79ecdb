"""What is known of models in general, and how it stands below what was found and what is configured."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.compilation import compile_catalogue
from gateway.config.problems import ConfigError
from gateway.config.schema import Config
from gateway.config.snapshot import Snapshot
from gateway.discovery.forms.listing import FoundModel
from gateway.discovery.knowledge import Knowledge
from gateway.discovery.registry import MOST_LISTED, ModelRegistry
from gateway.routing.catalogue import Catalogue
from gateway.routing.facts import UNKNOWN, ModelFacts, Prices

OPENAI = "https://api.openai.com/v1"
REGISTRY = ModelRegistry(lambda: datetime(2026, 11, 25, tzinfo=UTC))


def compiled(found: Mapping[str, tuple[FoundModel, ...]] | None = None, **sections: Any) -> Catalogue:
    sections.setdefault("discovery", {"enabled": found is not None})
    knowledge = Knowledge(REGISTRY, lambda _addresses: found or {})
    return compile_catalogue(Snapshot(Config.model_validate(sections)), None, "twinspan/test", knowledge)


def listed(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(listing.id, listing.owned_by) for listing in catalogue.listings()]


def test_a_vendors_models_are_known_by_its_name_and_by_its_address() -> None:
    facts = REGISTRY.facts("openai", "http://127.0.0.1:9/v1", "gpt-4o-mini")
    assert facts == ModelFacts(context_window=128_000, prices=Prices(0.15, 0.6, 0.075))
    assert REGISTRY.facts("mine", OPENAI, "gpt-4o-mini-2024-07-18") == facts
    assert REGISTRY.facts("openai", OPENAI, "nobody-made-this") == UNKNOWN


def test_prices_that_depend_on_the_size_of_a_request_are_kept() -> None:
    prices = REGISTRY.facts("gemini", "", "gemini-2.5-pro").prices
    assert prices == Prices(1.25, 10.0, 0.125, tiers=((200_000, Prices(2.5, 15.0, 0.25)),))


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "http://vllm:8000/v1", "http://a.example/v1"]
)
def test_nothing_is_known_of_an_operators_own_machines(address: str) -> None:
    assert REGISTRY.facts("mine", address, "gpt-4o") == UNKNOWN
    assert REGISTRY.models("mine", address) == ()


def test_a_vendors_models_are_listed_in_a_stable_order_and_a_bounded_number() -> None:
    models = REGISTRY.models("openai", OPENAI)
    assert models == tuple(sorted(set(models)))
    assert {"gpt-4o", "gpt-4o-mini"} <= set(models)
    assert len(REGISTRY.models("openrouter", "https://openrouter.ai/api/v1")) == MOST_LISTED
    assert REGISTRY.models("azure", "https://mine.openai.azure.com/openai/v1") == (), "its models have the customer's names"


def test_nothing_is_fetched_and_the_packages_updater_rests() -> None:
    import threading  # noqa: PLC0415

    from genai_prices import data_snapshot  # noqa: PLC0415

    REGISTRY.facts("openai", OPENAI, "gpt-4o")
    assert not data_snapshot.get_snapshot().from_auto_update
    assert [thread.name for thread in threading.enumerate() if "price" in thread.name.lower()] == []


def test_what_is_configured_stands_over_what_was_found_and_that_over_the_registry() -> None:
    said = ModelFacts(context_window=100_000, max_tokens=5000, created=7)
    models = (FoundModel("gpt-4o-mini", said, frozenset({"vision"}), frozenset({"reasoning"})), FoundModel("gpt-4o", said))
    openai: dict[str, Any] = {"api_key": "k", "model_info": {"gpt-4o-mini": {"max_tokens": 1000, "output_cost_per_1m": 9}}}
    facts = compiled({"openai": models}, providers={"openai": openai}).providers["openai"].facts
    mini = facts.of("gpt-4o-mini")
    assert (mini.context_window, mini.max_tokens, mini.created) == (100_000, 1000, 7)
    assert mini.prices == Prices(0.15, 9.0, 0.075)
    assert mini.capabilities is not None
    assert ("vision" in mini.capabilities, "reasoning" in mini.capabilities, "tool_calls" in mini.capabilities) == (
        True,
        False,
        True,
    )
    assert facts.of("gpt-4o").capabilities is None
    assert facts.of("o3-mini").prices is not None, "what nobody lists is looked up"


@pytest.mark.parametrize(
    ("info", "prices"),
    [
        ({}, Prices(1.25, 10.0, 0.125, tiers=((200_000, Prices(2.5, 15.0, 0.25)),))),
        ({"input_cost_per_1m": 1}, Prices(1.0, 10.0)),
        ({"input_cost_per_1m": 0, "output_cost_per_1m": 0}, Prices(0.0, 0.0)),
        ({"output_cost_per_1m": 1}, Prices(1.25, 1.0, 0.125)),
        ({"cached_input_cost_per_1m": 1}, Prices(1.25, 10.0, 1.0)),
    ],
)
def test_configured_prices_hold_for_requests_of_any_size(info: dict[str, float], prices: Prices) -> None:
    gemini = {"api_key": "k", "model_info": {"gemini-2.5-pro": info}}
    assert compiled(providers={"gemini": gemini}).providers["gemini"].facts.of("gemini-2.5-pro").prices == prices


def test_a_vendor_that_was_not_asked_lists_what_it_is_known_to_have_and_takes_all_else() -> None:
    catalogue = compiled(providers={"mine": {"base_url": "http://127.0.0.1:9/v1"}, "openai": {"api_key": "k"}})
    assert ("gpt-4o", "openai") in listed(catalogue)
    assert {listing.source for listing in catalogue.listings()} == {"registry"}
    assert catalogue.route("gpt-4o").targets[0].provider.name == "openai"
    assert catalogue.route("something-new").targets[0].provider.name == "mine"
    assert catalogue.route("openai/something-new").targets[0].provider.name == "openai"


def test_a_vendor_that_was_asked_lists_what_it_said_alone() -> None:
    found = {"openai": (FoundModel("gpt-new"),)}
    assert listed(compiled(found, providers={"openai": {"api_key": "k"}})) == [("gpt-new", "openai")]
    assert listed(compiled({"openai": ()}, providers={"openai": {"api_key": "k"}})) == []


def test_an_agent_that_no_discovery_can_fill_is_a_mistake() -> None:
    fixed = {"base_url": "http://127.0.0.1:9/v1", "models": ["a"]}
    with pytest.raises(ConfigError, match=r"agents\.smart"):
        compiled({}, providers={"fixed": fixed}, agents={"smart": {"models": ["b"]}})


def test_a_list_of_models_admits_no_others() -> None:
    said = FoundModel("gpt-4o", ModelFacts(max_tokens=3))
    catalogue = compiled({"openai": (FoundModel("gpt-new"), said)}, providers={"openai": {"api_key": "k", "models": ["gpt-4o"]}})
    assert listed(catalogue) == [("gpt-4o", "openai")]
    assert catalogue.route("gpt-4o").targets[0].facts.max_tokens == 3


def test_agents_come_first_then_configured_then_found_then_known_models() -> None:
    providers = {
        "openai": {"api_key": "k"},
        "open": {"base_url": "http://127.0.0.1:9/v1"},
        "fixed": {"base_url": "http://127.0.0.1:9/v1", "models": ["z", "shared"]},
    }
    found = {"open": (FoundModel("m"), FoundModel("shared"))}
    catalogue = compiled(found, providers=providers, agents={"smart": {"models": [{"model_rgx": "^[mz]$"}]}})
    names = listed(catalogue)
    assert names[:4] == [("smart", "twinspan"), ("z", "fixed"), ("shared", "fixed"), ("m", "open")]
    assert {owner for _, owner in names[4:]} == {"openai"}
    assert [target.provider.name for target in catalogue.route("shared").targets] == ["fixed", "open"]
    assert [(target.provider.name, target.model) for target in catalogue.agents["smart"].targets] == [("open", "m"), ("fixed", "z")]


def test_a_selector_takes_models_that_can_what_it_requires() -> None:
    found = {
        "open": (
            FoundModel("sees", can=frozenset({"vision"})),
            FoundModel("blind", cannot=frozenset({"vision"})),
            FoundModel("silent"),
        )
    }
    agents = {"eyes": {"models": [{"provider": "open", "required_capabilities": ["vision"]}]}}
    for capabilities, expected in ((["vision"], ["sees", "silent"]), ([], ["sees"])):
        providers = {"open": {"base_url": "http://127.0.0.1:9/v1", "capabilities": capabilities}}
        catalogue = compiled(found, providers=providers, agents=agents)
        assert [target.model for target in catalogue.agents["eyes"].targets] == expected


def test_a_found_name_that_means_another_providers_model_is_listed_with_its_own_provider() -> None:
    providers = {"openai": {"api_key": "k", "models": ["gpt-4o"]}, "router": {"base_url": "http://127.0.0.1:9/v1"}}
    catalogue = compiled({"router": (FoundModel("openai/gpt-4o"), FoundModel("meta/llama"))}, providers=providers)
    assert listed(catalogue) == [("gpt-4o", "openai"), ("router/openai/gpt-4o", "router"), ("meta/llama", "router")]
    for name, provider, model in (
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("router/openai/gpt-4o", "router", "openai/gpt-4o"),
        ("meta/llama", "router", "meta/llama"),
    ):
        (target,) = catalogue.route(name).targets
        assert (target.provider.name, target.model) == (provider, model)
