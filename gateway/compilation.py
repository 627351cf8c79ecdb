"""Compiles a configuration into what requests are served from: the catalogue and the ring of keys.

It is done at start and at each reload, as a whole: either everything compiles, or what was there stays. Pure: no I/O.
"""

from collections.abc import Iterable, Mapping

from yarl import URL

from gateway.access.keys import ApiKey, KeyRing, Principal
from gateway.config.schema import AgentConfig, Config, ProviderConfig
from gateway.config.snapshot import Snapshot
from gateway.config.vendors import VENDORS, Vendor
from gateway.local.engine import LocalEndpoint
from gateway.providers.provider import Provider
from gateway.providers.timeouts import Timeouts
from gateway.routing.catalogue import Agent, Catalogue, Target
from gateway.routing.cooldown import CooldownSettings
from gateway.routing.strategies import STRATEGIES

LOCAL = "local"
"""The name of the provider behind which the embedded model stands."""

_CONNECT_SECONDS = 10.0
_AUTH_HEADERS: Mapping[str, str] = {
    "bearer": "Authorization",
    "bearer+x-goog": "Authorization",
    "anthropic": "x-api-key",
    "azure": "api-key",
}
_CUSTOM = Vendor(
    name="",
    base_url=None,
    auth_style="bearer",
    key_variable=None,
    capabilities=frozenset({"stream_options", "tool_choice_auto", "content_arrays", "tool_calls"}),
)


def compile_catalogue(snapshot: Snapshot, local: LocalEndpoint | None) -> Catalogue:
    """Returns the catalogue of a configuration.

    Args:
        snapshot: The configuration.
        local: Where the embedded model answers, if it runs.
    """
    config = snapshot.config
    providers = {name: _provider(name, provider, config) for name, provider in config.providers.items()}
    if local is not None:
        providers[LOCAL] = _local_provider(local, config)
    agents = [
        _agent(name, agent, providers, snapshot.system_prompts.get(name, "")) for name, agent in config.agents.items()
    ]
    return Catalogue(list(providers.values()), agents)


def compile_keys(config: Config, client_token: str | None) -> KeyRing:
    """Returns the ring of all keys.

    Args:
        config: The configuration.
        client_token: The administrator's token, be it configured or made for this run.
    """
    return KeyRing(
        client_token,
        (
            ApiKey(
                key.token.get_secret_value(),
                Principal(
                    key.name,
                    roles=frozenset(key.roles),
                    allowed_agents=frozenset(key.allowed_agents),
                    allowed_endpoints=tuple(key.allowed_endpoints),
                    expires_at=key.expires_at,
                    enabled=key.enabled,
                    cache_salt=key.cache_salt or "",
                    rpm=key.rpm,
                    tpm=key.tpm,
                    budget_usd=key.budget_usd,
                    max_parallel=key.max_parallel,
                ),
            )
            for key in config.api_keys
        ),
    )


def needs_local_model(config: Config) -> bool:
    """Tells whether the embedded model is to run: when nothing else is configured, or when it is asked for."""
    return not config.providers and config.local_engine.base_url is None
