"""What a configuration comes to: providers with their addresses and credentials, agents with their targets, keys."""

from typing import Any

import pytest

from gateway.compilation import compile_catalogue, compile_keys, needs_local_model
from gateway.config.problems import ConfigError
from gateway.config.schema import Config
from gateway.config.snapshot import Snapshot
from gateway.local.engine import LocalEndpoint
from gateway.providers.provider import Provider
from gateway.routing.catalogue import Catalogue

LOCAL = LocalEndpoint("http://127.0.0.1:9/v1", "key-of-the-engine", ("small",))


def compiled(local: LocalEndpoint | None = None, **sections: Any) -> Catalogue:
    return compile_catalogue(Snapshot(Config.model_validate(sections)), local, "twinspan/test")


def provider(name: str = "mine", **fields: Any) -> Provider:
    return compiled(providers={name: fields}).providers[name]


def targets(catalogue: Catalogue, agent: str = "smart") -> list[tuple[str, str]]:
    return [(target.provider.name, target.model) for target in catalogue.agents[agent].targets]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"base_url": "http://a.example/v1"}, "http://a.example/v1/chat/completions"),
        ({"base_url": "http://a.example/v1/"}, "http://a.example/v1/chat/completions"),
        ({"url": "http://a.example/elsewhere"}, "http://a.example/elsewhere"),
    ],
)
def test_chats_go_below_the_base_url_or_to_the_url_itself(fields: dict[str, str], url: str) -> None:
    assert str(provider(**fields).chat_url) == url


def test_a_built_in_provider_needs_its_credential_alone() -> None:
    built_in = provider("openai", api_key="sk-1")
    assert str(built_in.chat_url) == "https://api.openai.com/v1/chat/completions"
    assert built_in.headers["Authorization"] == "Bearer sk-1"
    assert built_in.models is None


@pytest.mark.parametrize(
    ("style", "headers"),
    [
        ("bearer", {"Authorization": "Bearer k"}),
        ("bearer+x-goog", {"Authorization": "Bearer k", "x-goog-api-key": "k"}),
        ("anthropic", {"x-api-key": "k", "anthropic-version": "2023-06-01"}),
        ("azure", {"api-key": "k"}),
        ("none", {}),
    ],
)
def test_the_credential_is_sent_as_the_auth_style_says(style: str, headers: dict[str, str]) -> None:
    found = provider(base_url="http://a.example/v1", api_key="k", auth_style=style)
    common = {"Content-Type": "application/json", "User-Agent": "twinspan/test"}
    assert found.headers == {**common, **headers}
    assert found.cleansed("the key k is bad") == "the [REDACTED]ey [REDACTED] is bad"


def test_a_providers_own_limits_come_before_those_for_all() -> None:
    sections: dict[str, Any] = {
        "governance": {"upstream_timeout_seconds": 7, "stream_idle_timeout_seconds": 6, "retryable_status_codes": [500]},
        "providers": {
            "own": {"base_url": "http://a.example/v1", "timeout_seconds": 3, "stream_idle_timeout_seconds": 2},
            "common": {"base_url": "http://a.example/v1", "retryable_status_codes": []},
        },
    }
    providers = compiled(**sections).providers
    assert (providers["own"].timeouts.total, providers["own"].timeouts.idle) == (3, 2)
    assert (providers["common"].timeouts.total, providers["common"].timeouts.idle) == (7, 6)
    assert providers["own"].retryable_status_codes == {500}
    assert providers["common"].retryable_status_codes == set()


def test_capabilities_say_whether_usage_is_asked_for_in_a_stream() -> None:
    assert provider(base_url="http://a.example/v1").stream_options
    assert not provider(base_url="http://a.example/v1", capabilities=["tool_calls"]).stream_options


THREE = {
    "one": {"base_url": "http://a.example/v1", "models": ["a-small", "a-large", "shared"]},
    "two": {"base_url": "http://b.example/v1", "models": ["b-small", "shared"]},
    "open": {"base_url": "http://c.example/v1"},
}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["a-small"], [("one", "a-small")]),
        (["shared"], [("one", "shared"), ("two", "shared")]),
        (["two/shared"], [("two", "shared")]),
        (["anything"], [("open", "anything")]),
        ([{"provider": "open", "model": "x/y"}], [("open", "x/y")]),
        ([{"provider": "two"}], [("two", "b-small"), ("two", "shared")]),
        ([{"model_rgx": "small$"}], [("one", "a-small"), ("two", "b-small")]),
        ([{"provider_rgx": "^o", "model_rgx": "^a"}], [("one", "a-small"), ("one", "a-large")]),
        ([{"model": "shared", "provider_rgx": "two"}], [("two", "shared")]),
        (["shared", {"provider": "one", "model": "shared"}], [("one", "shared"), ("two", "shared")]),
    ],
)
def test_an_agents_models_become_targets_in_order_and_each_once(models: list[Any], expected: list[tuple[str, str]]) -> None:
    assert targets(compiled(providers=THREE, agents={"smart": {"models": models}})) == expected


def test_agents_and_providers_that_come_to_nothing_are_all_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        compiled(
            providers={"one": THREE["one"]},
            agents={"a": {"models": ["nobody"]}, "b": {"models": ["a-small", "nobody"]}, "c": {"models": [{"model_rgx": "z"}]}},
        )
    assert [problem.partition(":")[0] for problem in raised.value.problems] == ["agents.a.models", "agents.c.models"]
    with pytest.raises(ConfigError, match=r"providers\.mine"):
        compiled(providers={"mine": {}})


@pytest.mark.parametrize(
    ("sections", "needed"),
    [
        ({}, True),
        ({"providers": {"local": {}}}, True),
        ({"providers": {"one": {"base_url": "http://a.example/v1"}}}, False),
        ({"local_engine": {"base_url": "http://a.example/v1"}}, False),
        ({"providers": {"local": {"base_url": "http://a.example/v1"}}}, False),
    ],
)
def test_the_embedded_model_runs_if_it_is_named_or_nothing_else_is(sections: dict[str, Any], needed: bool) -> None:
    assert needs_local_model(Config.model_validate(sections)) is needed


def test_the_embedded_model_is_a_provider_that_costs_nothing() -> None:
    local = compiled(LOCAL).providers["local"]
    assert (str(local.chat_url), local.models, local.free) == ("http://127.0.0.1:9/v1/chat/completions", ("small",), True)
    assert local.headers["Authorization"] == "Bearer key-of-the-engine"
    assert targets(compiled(LOCAL, providers={"local": {}, **THREE}, agents={"smart": {"models": ["small"]}})) == [
        ("local", "small")
    ]


def test_an_engine_in_place_of_the_embedded_model_offers_any_model() -> None:
    local = compiled(local_engine={"base_url": "http://127.0.0.1:8/v1"}).providers["local"]
    assert (str(local.chat_url), local.models, local.free) == ("http://127.0.0.1:8/v1/chat/completions", None, False)


def test_keys_are_found_by_their_tokens() -> None:
    key = {"name": "ann", "token": "ts-the-key-of-ann-1", "roles": ["read-only"], "allowed_agents": ["smart"], "rpm": 5}
    ring = compile_keys(Config.model_validate({"api_keys": [key]}), "ts-the-administrator")
    found = ring.identify("ts-the-key-of-ann-1")
    assert found is not None
    assert (found.name, found.roles, found.allowance.rpm) == ("ann", frozenset({"read-only"}), 5)
    administrator = ring.identify("ts-the-administrator")
    assert administrator is not None
    assert administrator.roles == {"admin"}
    assert ring.identify("ts-nobody") is None
