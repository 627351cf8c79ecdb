"""The whole of a configuration, its secrets included."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from gateway.config.discovery import DiscoveryConfig
from gateway.config.pipeline import (
    BouncerConfig,
    CompactionConfig,
    ContextConfig,
    PrefixCacheConfig,
    ResponseCacheConfig,
    WindowConfig,
)
from gateway.config.routing import (
    AgentConfig,
    GovernanceConfig,
    LocalEngineConfig,
    ModelInfoConfig,
    ProviderConfig,
    SelectorConfig,
)
from gateway.config.section import LATER, Count, Dollars, Later, Name, Secret, Section
from gateway.config.server import (
    A2aConfig,
    BatchesConfig,
    DebugConfig,
    FilesConfig,
    McpServerConfig,
    ServerConfig,
    StateConfig,
    TelemetryConfig,
)

__all__ = [
    "AgentConfig",
    "ApiKeyConfig",
    "Config",
    "ModelInfoConfig",
    "ProviderConfig",
    "SelectorConfig",
    "ServerConfig",
    "json_schema",
    "unserved_keys",
]


def _aware(value: datetime) -> datetime:
    """Takes a time without a zone for UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _long_enough(value: Any) -> Any:
    if not 16 <= len(value.get_secret_value()) <= 512:
        raise ValueError("must have 16 to 512 characters; `twinspan keygen` makes one")
    return value


class ApiKeyConfig(Section):
    """A key of the gateway."""

    name: Name
    """The key's name, which logs and traces may show."""
    token: Annotated[Secret, AfterValidator(_long_enough)]
    """The credential, 16 to 512 characters."""
    roles: Annotated[tuple[Literal["admin", "user", "read-only"], ...], Field(min_length=1)] = ("user",)
    """What it may do."""
    allowed_agents: tuple[str, ...] = ()
    """The models and agents it may name; all if none is given."""
    allowed_endpoints: tuple[Annotated[str, Field(pattern=r"^[A-Z*]+ /\S*$")], ...] = ()
    """The routes it may call, as `METHOD /path` with `*` for a segment, in place of what its roles say."""
    created_at: Annotated[datetime, AfterValidator(_aware)] | None = None
    """When it was made."""
    expires_at: Annotated[datetime, AfterValidator(_aware)] | None = None
    """When it stops being valid."""
    enabled: bool = True
    """Whether it is valid at all."""
    cache_salt: str | None = None
    """What sets its cache entries apart."""
    rpm: Count | None = None
    """Most requests a minute."""
    tpm: Count | None = None
    """Most tokens a minute."""
    budget_usd: Dollars | None = None
    """Most that it may spend, in US dollars."""
    max_parallel: Count | None = None
    """Most requests at a time."""


class Config(Section):
    """A configuration."""

    server: ServerConfig = Field(default_factory=ServerConfig)
    """How the gateway listens and logs."""
    governance: GovernanceConfig = Field(default_factory=GovernanceConfig)
    """What holds for all providers."""
    providers: dict[Name, ProviderConfig] = Field(default_factory=dict)
    """Who answers, by name; the order decides between equals."""
    agents: dict[Name, AgentConfig] = Field(default_factory=dict)
    """Names that stand for several models."""
    context: ContextConfig = Field(default_factory=ContextConfig)
    """What happens to a conversation that is too long."""
    bouncer: Annotated[BouncerConfig | None, LATER] = None
    """What must not pass."""
    prefix_cache: Annotated[PrefixCacheConfig | None, LATER] = None
    """What is done so that a provider's cache is hit."""
    compaction: Annotated[CompactionConfig | None, LATER] = None
    """What is left out of a conversation."""
    window: Annotated[WindowConfig | None, LATER] = None
    """How older messages make room."""
    response_cache: Annotated[ResponseCacheConfig | None, LATER] = None
    """Answers that are given again."""
    discovery: DiscoveryConfig = Field(default_factory=DiscoveryConfig)
    """Finding out which models providers have."""
    mcp_servers: Annotated[dict[Name, McpServerConfig], LATER] = Field(default_factory=dict)
    """Servers of tools, by name."""
    local_engine: LocalEngineConfig = Field(default_factory=LocalEngineConfig)
    """The embedded model."""
    state: StateConfig = Field(default_factory=StateConfig)
    """Where shared state lives."""
    files: FilesConfig = Field(default_factory=FilesConfig)
    """Where files are kept."""
    batches: BatchesConfig = Field(default_factory=BatchesConfig)
    """How batches run."""
    a2a: Annotated[A2aConfig | None, LATER] = None
    """What is shown to agents that speak A2A."""
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig)
    """What leaves the process."""
    debug: DebugConfig = Field(default_factory=DebugConfig)
    """What helps to look into a running gateway."""
    client_token: Secret | None = None
    """The administrator's credential. A secret: it belongs into a secrets file."""
    api_keys: tuple[ApiKeyConfig, ...] = ()
    """All other credentials. Secrets too."""
    provider_keys: dict[Name, Secret] = Field(default_factory=dict)
    """Credentials at providers, by the provider's name. Secrets too."""


SECRET_KEYS = ("client_token", "api_keys", "provider_keys")
"""The keys of a secrets file."""


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of configuration files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def unserved_keys(config: Config) -> list[str]:
    """Returns the paths of all keys that are set but have no effect yet."""
    paths = list(_unserved(config, ""))
    for name, provider in config.providers.items():
        served = next((account for account in provider.accounts if account.credential == provider.api_key), None)
        paths += [f"providers.{name}.accounts[{i}]" for i, account in enumerate(provider.accounts) if account is not served]
    return paths


def _unserved(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set, key=list(type(value).model_fields).index):
            inner = f"{path}.{name}" if path else name
            if any(isinstance(mark, Later) for mark in type(value).model_fields[name].metadata):
                yield inner
            else:
                yield from _unserved(getattr(value, name), inner)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unserved(item, f"{path}.{name}")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _unserved(item, f"{path}[{number}]")
