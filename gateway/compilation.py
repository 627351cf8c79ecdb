"""Compiles a configuration into what requests are served from: the catalogue and the keys.

It is done at start, at each reload and after each round of discovery, as a whole: either everything compiles, or what was there
stays. Pure: no I/O.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from yarl import URL

from gateway.access.keys import UNLIMITED, Allowance, ApiKey, ConfiguredKeys, Principal, Team
from gateway.accounts.credentials import credential_headers, with_accounts
from gateway.billing.terms import Terms
from gateway.config.loading import ConfigError
from gateway.config.schema import AgentConfig, ApiKeyConfig, Config, ProviderConfig, SelectorConfig, TeamConfig
from gateway.config.snapshot import Snapshot
from gateway.config.vendors import VENDORS, Vendor
from gateway.discovery.auto_agents import auto_agents
from gateway.discovery.knowledge import Knowledge, informed
from gateway.local.engine import LocalEndpoint
from gateway.providers.provider import Provider
from gateway.providers.timeouts import Timeouts
from gateway.routing.breaker import BreakerSettings
from gateway.routing.catalogue import Agent, Catalogue, Rules, offered
from gateway.routing.strategies import COST_SCALES, Weights
from gateway.routing.target import Target

LOCAL = "local"
"""The name of the provider behind which the embedded model stands."""

_CONNECT_SECONDS = 10.0
_LOCAL_INPUTS = 32  # so that its process takes turns among those who ask, and a piece never waits long
_CUSTOM = Vendor(name="", base_url=None, key_variable=None)
"""What a provider is taken for that is not built in."""


def needs_local_model(config: Config) -> bool:
    """Tells whether the embedded model is to run: if nothing else is configured, or if `local` is named without an address."""
    if not config.providers:
        return config.local_engine.base_url is None
    local = config.providers.get(LOCAL)
    return local is not None and local.url is None and local.base_url is None and config.local_engine.base_url is None


def compile_catalogue(
    snapshot: Snapshot, local: LocalEndpoint | None, user_agent: str, knowledge: Knowledge | None = None
) -> Catalogue:
    """Returns the catalogue of a configuration.

    Args:
        snapshot: The configuration.
        local: Where the embedded model answers, if it runs.
        user_agent: What providers are told who asks, unless the configuration says it.
        knowledge: What is known of models beyond it; None for nothing.

    Raises:
        ConfigError: A provider has no address, or an agent is left without a target that no discovery can find.
    """
    config = snapshot.config
    problems: list[str] = []
    providers: dict[str, Provider] = {}
    for name, configured in _configured_providers(config, local).items():
        endpoint = local if name == LOCAL and configured.url is None and configured.base_url is None else None
        provider = _provider(name, configured, config, endpoint, config.server.user_agent or user_agent)
        if provider is None:
            problems.append(f"providers.{name}: there is no built-in provider of this name, so give its base_url.")
        else:
            providers[name] = provider
    providers = {name: _with_accounts(provider, config) for name, provider in informed(providers, config, knowledge).items()}
    agents: list[Agent] = []
    idle: list[str] = []
    all_there = not problems  # else an agent may miss nothing but what is reported already
    for name, agent in config.agents.items():
        targets = tuple(_targets(name, agent, providers))
        if targets:
            agents.append(_agent(name, agent, targets, snapshot.system_prompts.get(name, ""), _shadow(name, agent, providers)))
        elif config.discovery.enabled and any(provider.models is None for provider in providers.values()):
            idle.append(name)  # its models may be found yet
        elif all_there:
            problems.append(f"agents.{name}.models: no provider offers any of them. Add them to a provider's models.")
    if problems:
        raise ConfigError(problems)
    listed = list(providers.values())
    if config.discovery.auto_agents:
        agents += auto_agents(config.discovery.auto_agents_config, offered(listed), taken=config.agents)
    return Catalogue(listed, agents, idle, _rules(config))


def compile_keys(config: Config, client_token: str | None) -> ConfiguredKeys:
    """Returns the keys and teams of a configuration.

    Args:
        config: The configuration.
        client_token: The administrator's token, be it configured or made for this run.
    """
    teams = {name: Team(name, _allowance_of(team)) for name, team in config.teams.items()}
    return ConfiguredKeys(
        client_token,
        tuple(
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
                    allowance=_allowance_of(key),
                    team=teams[key.team] if key.team is not None else None,
                ),
            )
            for key in config.api_keys
        ),
        teams,
    )


def _allowance_of(of: ApiKeyConfig | TeamConfig) -> Allowance:
    return Allowance.of(of.rpm, of.tpm, of.max_parallel, of.budget_usd, of.budget_period)


def _configured_providers(config: Config, local: LocalEndpoint | None) -> Mapping[str, ProviderConfig]:
    """Returns the providers, with the embedded model's where nothing else is configured."""
    if config.providers or (local is None and config.local_engine.base_url is None):
        return config.providers
    return {LOCAL: ProviderConfig()}


def _provider(
    name: str, configured: ProviderConfig, config: Config, local: LocalEndpoint | None, user_agent: str
) -> Provider | None:
    """Returns a provider; None if nothing says where it is."""
    vendor = VENDORS.get(name, _CUSTOM)
    base_url = configured.base_url or (local.base_url if local else None) or vendor.base_url
    if base_url is None and name == LOCAL:
        base_url = config.local_engine.base_url
    url = str(configured.url) if configured.url else f"{str(base_url).rstrip('/')}/chat/completions" if base_url else None
    if url is None:
        return None
    secret = configured.api_key
    credential = local.api_key if local else secret.get_secret_value() if secret else ""
    retryable = configured.retryable_status_codes
    own = {**credential_headers(configured.auth_style or vendor.auth_style, credential), **configured.headers}
    capabilities = configured.capabilities if configured.capabilities is not None else tuple(sorted(vendor.capabilities))
    governance = config.governance
    total = configured.timeout_seconds or governance.upstream_timeout_seconds
    return Provider(
        name=name,
        base_url=_base_url(url),
        chat_url=URL(url),
        url_text=url,
        headers={
            "Content-Type": "application/json",
            "User-Agent": user_agent,
            **own,
        },
        models=local.models if local and not configured.models else tuple(configured.models) if configured.models else None,
        timeouts=Timeouts(
            connect=_CONNECT_SECONDS,
            first_token=governance.first_token_timeout_seconds,
            idle=configured.stream_idle_timeout_seconds or governance.stream_idle_timeout_seconds,
            total=total,
        ),
        thinking_idle_seconds=configured.stream_idle_timeout_seconds
        or max(governance.stream_idle_timeout_seconds, governance.thinking_stream_idle_timeout_seconds),
        request_seconds=max(total, governance.upstream_timeout_seconds),
        retryable_status_codes=frozenset(governance.retryable_status_codes if retryable is None else retryable),
        stream_options="stream_options" in capabilities,
        empty_stream_as_error=governance.empty_stream_as_error,
        free=local is not None,
        capabilities=tuple(dict.fromkeys((*capabilities, "embeddings")))
        if local and local.embedding_models
        else tuple(capabilities),
        rerank_style=configured.rerank_style or vendor.rerank_style,
        host=URL(url).authority,
        allowance=UNLIMITED
        if local
        else Allowance.of(
            _or(configured.ratelimit_max_rpm, governance.ratelimit_max_rpm),
            _or(configured.ratelimit_max_tpm, governance.ratelimit_max_tpm),
            configured.max_parallel,
        ),
        places={"/embeddings": local.embeddings_url} if local and local.embeddings_url else {},
        embedding_models=frozenset(local.embedding_models) if local else frozenset(),
        most_embedding_inputs=configured.max_embedding_inputs or (_LOCAL_INPUTS if local else vendor.max_embedding_inputs),
        listing_style=configured.listing_style or vendor.listing_style,
        secrets=(credential,) if credential else (),
        own_headers=own,
        billing=Terms.of(configured.billing),
    )


def _or(own: int | None, general: int) -> int:
    return general if own is None else own


def _with_accounts(provider: Provider, config: Config) -> Provider:
    """Returns a provider with its accounts; it is done last, since each is the provider with another credential."""
    configured = config.providers.get(provider.name)
    if configured is None or not configured.accounts:
        return provider
    style = configured.auth_style or VENDORS.get(provider.name, _CUSTOM).auth_style
    return with_accounts(provider, configured.accounts, style)


def _base_url(chat_url: str) -> str:
    """Returns the address under which a provider's other endpoints stand, from where its chats go."""
    address, _, _query = chat_url.partition("?")
    return address.removesuffix("/chat/completions").rstrip("/")


def _agent(name: str, configured: AgentConfig, targets: tuple[Target, ...], system_prompt: str, shadow: Target | None) -> Agent:
    return Agent(
        name=name,
        targets=targets,
        strategy=configured.strategy,
        breaker=BreakerSettings(
            configured.failure_threshold,
            configured.cooldown_seconds,
            configured.failure_window_secs,
            configured.success_threshold,
        ),
        max_retries=configured.max_retries,
        system_prompt=system_prompt,
        force_system_prompt=configured.force_system_prompt,
        description=configured.description,
        session_ttl_seconds=configured.sticky_session_ttl_seconds,
        hedges=configured.hedging,
        shadow=shadow,
        allowance=Allowance.of(
            configured.ratelimit_max_rpm,
            configured.ratelimit_max_tpm,
            configured.max_parallel,
            configured.budget_limit_usd,
            configured.budget_period,
        ),
    )


def _rules(config: Config) -> Rules:
    governance, context = config.governance, config.context
    return Rules(
        routing_strategy=governance.routing_strategy,
        weights=Weights(governance.routing_latency_weight, governance.routing_cost_weight * COST_SCALES[governance.cost_mode]),
        max_cost_usd=governance.max_cost_per_request,
        skips_too_long=context.auto_context_skip,
        reorders_by_latency=context.auto_reorder_by_latency,
        retries_too_long=governance.auto_retry_on_context_limit,
    )


def _shadow(name: str, configured: AgentConfig, providers: Mapping[str, Provider]) -> Target | None:
    if configured.shadow is None:
        return None
    provider, _, model = configured.shadow.partition("/")
    return Target.of(providers[provider], model, f"{name}:shadow") if provider in providers else None


def _targets(agent: str, configured: AgentConfig, providers: Mapping[str, Provider]) -> Iterator[Target]:
    """Gives an agent's targets in configured order, each once."""
    seen: set[tuple[str, str]] = set()
    for entry in configured.models:
        required = frozenset[str]() if isinstance(entry, str) else frozenset[str](entry.required_capabilities)
        for provider, model in _expand(entry, providers):
            target = _selected(Target.of(provider, model, agent), entry)
            if (provider.name, model) not in seen and required <= target.capabilities:
                seen.add((provider.name, model))
                yield target


def _selected(target: Target, entry: str | SelectorConfig) -> Target:
    """Returns a target as the selector says that picked it."""
    if isinstance(entry, str):
        return target
    provider = target.provider
    if entry.url is not None:
        url = URL(entry.url)
        accounts = tuple(replace(account, chat_url=url, url_text=entry.url) for account in provider.accounts)
        provider = replace(provider, chat_url=url, url_text=entry.url, accounts=accounts)
    return replace(target, provider=provider, weight=entry.weight, max_context=entry.max_context, max_output=entry.max_output)


def _expand(entry: str | SelectorConfig, providers: Mapping[str, Provider]) -> Iterator[tuple[Provider, str]]:
    """Gives what one entry of an agent's models stands for, among the models that the providers are known by name to offer."""
    if isinstance(entry, str):
        yield from _named(entry, providers)
        return
    for provider in providers.values():
        if entry.provider is not None and provider.name != entry.provider:
            continue
        if entry.provider_rgx is not None and not re.search(entry.provider_rgx, provider.name):
            continue
        if entry.model is not None:
            if provider.models is None or entry.model in provider.models:
                yield provider, entry.model
            continue
        for model in provider.listed:
            if entry.model_rgx is None or re.search(entry.model_rgx, model):
                yield provider, model


def _named(name: str, providers: Mapping[str, Provider]) -> Iterator[tuple[Provider, str]]:
    """Gives every provider that has a model by name; else the one that its prefix names; else the first without a list."""
    listing = [provider for provider in providers.values() if name in (provider.models or ())]
    found = [provider for provider in providers.values() if provider.models is None and name in provider.found]
    prefix, slash, model = name.partition("/")
    provider = providers.get(prefix) if slash and model else None
    if provider is None or provider in found:
        listing += found
    if listing:
        yield from ((provider, name) for provider in listing)
        return
    if provider is not None and (provider.models is None or model in provider.models):
        yield provider, model
        return
    takers = [provider for provider in providers.values() if provider.models is None]
    for provider in [taker for taker in takers if name in taker.known] or takers:
        yield provider, name
        return
