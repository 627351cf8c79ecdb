"""Who answers: providers, agents over them, and the limits that hold for all."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, SecretStr, Tag, ValidationInfo, field_validator, model_validator

from gateway.config.billing import BillingConfig
from gateway.config.section import (
    LATER,
    BudgetPeriod,
    Count,
    Dollars,
    Headers,
    HttpUrl,
    IncludedPath,
    Name,
    Regex,
    Seconds,
    Secret,
    SecretText,
    Section,
    StatusCode,
    is_cookie,
    is_credential,
)

AuthStyle: TypeAlias = Literal["bearer", "bearer+x-goog", "anthropic", "azure", "none"]
RerankStyle: TypeAlias = Literal["cohere", "jina", "voyage"]
ListingStyle: TypeAlias = Literal["openai", "anthropic", "gemini", "ollama", "openrouter", "cohere"]
Strategy: TypeAlias = Literal["round-robin", "fallback", "sticky", "weighted", "latency", "cost", "least-busy", "balanced"]
Capability: TypeAlias = Literal[
    "stream_options",
    "tool_choice_auto",
    "content_arrays",
    "tool_calls",
    "reasoning",
    "vision",
    "audio",
    "completions",
    "embeddings",
    "images",
    "moderations",
    "rerank",
    "responses",
]
"""What a provider can do: details of its chats, and from `audio` on the kinds of service that it offers beside them."""


ModelOfProvider: TypeAlias = Annotated[str, Field(pattern=r"^[^/\s]+/\S+$", max_length=512)]
"""A model by its provider's name and its own."""


class GovernanceConfig(Section):
    """What holds for all providers unless one says otherwise."""

    ratelimit_max_rpm: Count = 0
    """Most requests a minute to one host; 0 for no limit."""
    ratelimit_max_tpm: Count = 0
    """Most tokens a minute to one host; 0 for no limit."""
    routing_strategy: Literal["latency", "balanced"] = "latency"
    """How several providers of one model are ordered."""
    routing_latency_weight: Annotated[float, Field(ge=0)] = 1.0
    """What latency counts in the strategy `balanced`."""
    routing_cost_weight: Annotated[float, Field(ge=0)] = 0.0
    """What cost counts in it."""
    cost_mode: Literal["economy", "balanced", "quality"] = "balanced"
    """How much of that weight holds: one and a half of it, all or nothing."""
    max_cost_per_request: Dollars = 0
    """Most that a request may cost in US dollars, as far as can be told ahead; 0 for no limit."""
    retryable_status_codes: tuple[StatusCode, ...] = (429, 500, 502, 503, 504)
    """Statuses of a provider after which another attempt may help."""
    empty_stream_as_error: bool = True
    """Whether a stream without any output counts as a failure."""
    auto_retry_on_context_limit: bool = False
    """Whether a chat that is too long for every target is asked again with its older part summarised."""
    upstream_timeout_seconds: Seconds = 300
    """Longest time of a whole request, all attempts together; longer only if one attempt may be."""
    first_token_timeout_seconds: Seconds = 60
    """Longest time to the first token."""
    stream_idle_timeout_seconds: Seconds = 300
    """Longest silence of a provider in a stream."""
    thinking_stream_idle_timeout_seconds: Seconds = 600
    """The same for models that can reason, if that is longer."""


class AccountConfig(Section):
    """One of several credentials at a provider."""

    id: Name
    """The account's name, which errors, metrics and statistics show."""
    type: Literal["apikey", "oauth", "cookie"] = "apikey"
    """How the credential is sent: as `auth_style` says, as a bearer token, or as the `Cookie` header."""
    credential: SecretText
    """The credential."""

    @field_validator("credential")
    @classmethod
    def _can_be_sent(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text = value.get_secret_value()
        if not (is_cookie(text) if info.data.get("type") == "cookie" else is_credential(text)):
            raise ValueError("must be printable ASCII, without blanks unless it is a cookie")
        return value


class ThinkingConfig(Section):
    """How a provider's reasoning is treated."""

    enabled: bool | None = None
    """Whether it is asked for."""
    clear_thinking: bool | None = None
    """Whether earlier reasoning is left out."""


class ModelInfoConfig(Section):
    """What is known of a model. It goes before what the provider says of it, and before what is known of it in general."""

    context_window: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that input and output may have together."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that one answer may have."""
    capabilities: tuple[Capability, ...] | None = None
    """What it can do, in place of what the provider can."""
    input_cost_per_1m: Dollars | None = None
    """Price of a million tokens read, in US dollars."""
    output_cost_per_1m: Dollars | None = None
    """Price of a million tokens written."""
    cached_input_cost_per_1m: Dollars | None = None
    """Price of a million tokens read from the provider's cache; without it, that of others."""
    cache_write_cost_per_1m: Dollars | None = None
    """Price of a million tokens written to the provider's cache; without it, that of tokens read."""


class ProviderConfig(Section):
    """Who answers requests. Whatever is not given here is taken from the built-in provider of the same name."""

    url: HttpUrl | None = None
    """Where chats go, whole; in place of `base_url`."""
    base_url: HttpUrl | None = None
    """The address of the API, to which `/chat/completions` is added."""
    auth_style: AuthStyle | None = None
    """How the credential is sent."""
    rerank_style: RerankStyle | None = None
    """In whose form it is asked to rerank."""
    listing_style: ListingStyle | None = None
    """In whose form it lists its models. Without it: the built-in provider's own, else OpenAI's."""
    format_urls: Annotated[dict[str, HttpUrl], LATER] = Field(default_factory=dict)
    """Addresses by format."""
    timeout_seconds: Seconds | None = None
    """Longest time of one attempt at it. Without it: `upstream_timeout_seconds`, which leaves no time for another attempt."""
    stream_idle_timeout_seconds: Seconds | None = None
    """Longest silence in a stream."""
    retryable_status_codes: tuple[StatusCode, ...] | None = None
    """Statuses after which another attempt may help."""
    ratelimit_max_rpm: Count | None = None
    """Most requests a minute to its host; 0 for no limit."""
    ratelimit_max_tpm: Count | None = None
    """Most tokens a minute to its host; 0 for no limit."""
    max_parallel: Count | None = None
    """Most requests at a time to its host."""
    api_key: Secret | None = None
    """The credential. Without it: `provider_keys` of the secrets, then the variable of the built-in provider."""
    accounts: tuple[AccountConfig, ...] = ()
    """Several credentials, used in turn, in place of `api_key`; see docs/accounts.md."""
    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()
    """The models it offers, and no others. Without any it is taken to offer every model that is asked for."""
    model_info: dict[Annotated[str, Field(min_length=1, max_length=256)], ModelInfoConfig] = Field(default_factory=dict)
    """What is known of its models, by name; it goes before what is found out."""
    headers: Headers = Field(default_factory=dict)
    """Headers of every request to it."""
    capabilities: tuple[Capability, ...] | None = None
    """What it can do."""
    max_embedding_inputs: Annotated[int, Field(ge=1)] | None = None
    """How many inputs it embeds at once; more are sent in pieces. Without it: what is known of the built-in provider, else 2048."""
    thinking: Annotated[ThinkingConfig | None, LATER] = None
    """How its reasoning is treated."""
    billing: BillingConfig | None = None
    """How it is paid; see docs/accounts.md."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ProviderConfig":
        if self.url is not None and self.base_url is not None:
            raise ValueError("give url or base_url, not both")
        if self.base_url is not None and "?" in self.base_url:
            raise ValueError("a base_url has no query, since /chat/completions is added to it: give the whole address as url")
        if self.api_key is not None and self.accounts:
            raise ValueError("give api_key or accounts, not both")
        if len({account.id for account in self.accounts}) != len(self.accounts):
            raise ValueError("two accounts have the same id")
        if self.billing is not None and self.billing.quota.source == "headers" and len(self.accounts) > 1:
            raise ValueError(
                "headers say what one of several accounts has left: leave billing.quota out, accounts rest by themselves"
            )
        return self


class SelectorConfig(Section):
    """What picks targets among the models that providers are configured to offer, found to have or known to have."""

    provider: Name | None = None
    """A provider's name."""
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A model's name."""
    provider_rgx: Regex | None = None
    """A regular expression that providers' names must match somewhere."""
    model_rgx: Regex | None = None
    """A regular expression that models' names must match somewhere."""
    format: Annotated[Literal["openai", "anthropic", "gemini"] | None, LATER] = None
    """The provider's wire format."""
    url: HttpUrl | None = None
    """Where its chats go, whole, in place of the provider's own address."""
    max_context: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of a conversation, if that is less than the model takes; see `context.auto_context_skip`."""
    max_output: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that an answer is taken to have where costs are estimated."""
    weight: Annotated[float, Field(ge=0)] = 1
    """Its share, with the strategy `weighted`; what else speaks for it, with `balanced`."""
    required_capabilities: tuple[Capability, ...] = ()
    """What the model must be able to do: by what is known of itself, else by what its provider can."""

    @model_validator(mode="after")
    def _picks_something(self) -> "SelectorConfig":
        if (self.provider, self.model, self.provider_rgx, self.model_rgx) == (None,) * 4:
            raise ValueError("give at least one of provider, model, provider_rgx and model_rgx")
        return self


class AgentMcpConfig(Section):
    """Which tools an agent has."""

    servers: tuple[str, ...] = ()
    """Servers of `mcp_servers`."""
    max_iterations: Annotated[int, Field(ge=1, le=50)] = 10
    """Most rounds of tool calls."""
    auto_search: bool = False
    """Whether memory is searched before each request."""
    auto_save: bool = False
    """Whether memory is written after each request."""
    search_tool: str | None = None
    """The tool that searches memory."""
    save_tool: str | None = None
    """The tool that writes memory."""


def _kind(value: Any) -> str:
    return MODEL_NAME if isinstance(value, str) else SELECTOR


MODEL_NAME = "<name>"
SELECTOR = "<selector>"
"""What the two forms of an entry are called in the place of an error; no key has such a name."""

AgentModel: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1, max_length=256), Tag(MODEL_NAME)] | Annotated[SelectorConfig, Tag(SELECTOR)],
    Discriminator(_kind),
]


class AgentConfig(Section):
    """A name that stands for several models."""

    strategy: Strategy = "fallback"
    """In which order targets are tried."""
    models: Annotated[tuple[AgentModel, ...], Field(min_length=1)]
    """The targets: a model's name for every provider that has it, or a selector."""
    cooldown_seconds: Seconds = 60
    """How long a target's breaker stays open."""
    failure_threshold: Annotated[int, Field(ge=1)] = 5
    """How many failures open it."""
    failure_window_secs: Count = 0
    """Seconds in which they must happen; 0 if they must happen in a row instead."""
    success_threshold: Annotated[int, Field(ge=1)] = 1
    """How many successes close it, once it lets attempts through again."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How often one target is tried again before the next."""
    system_prompt: str = ""
    """Instructions put before the conversation."""
    system_prompt_file: IncludedPath | None = None
    """The file that holds them."""
    force_system_prompt: bool = False
    """Whether they replace the client's own."""
    sticky_session_ttl_seconds: Seconds = 3600
    """How long an idle conversation keeps its target, with the strategy `sticky`."""
    hedging: bool = False
    """Whether the next target is asked too where the first takes longer to begin than 95 % of its last answers did."""
    shadow: ModelOfProvider | None = None
    """A model, as `provider/model`, that gets a copy of each chat; its answers are measured, and given to nobody."""
    ratelimit_max_rpm: Count | None = None
    """Most requests a minute, of all keys together."""
    ratelimit_max_tpm: Count | None = None
    """Most tokens a minute."""
    max_parallel: Count | None = None
    """Most requests at a time."""
    budget_limit_usd: Dollars | None = None
    """Most that it may spend in a period, in US dollars."""
    budget_period: BudgetPeriod = "total"
    """That period, in UTC."""
    cache_salt: Annotated[str | None, LATER] = None
    """What sets its cache entries apart."""
    mcp: Annotated[AgentMcpConfig | None, LATER] = None
    """Which tools it has."""
    description: str = ""
    """What it is for."""

    @model_validator(mode="after")
    def _has_one_prompt(self) -> "AgentConfig":
        if self.system_prompt and self.system_prompt_file is not None:
            raise ValueError("give system_prompt or system_prompt_file, not both")
        return self


class LocalEngineConfig(Section):
    """The embedded model, or an engine in its place."""

    base_url: HttpUrl | None = None
    """An OpenAI-compatible engine on this machine, in place of the embedded model."""
    timeout_seconds: Annotated[Seconds, LATER] = 120
    """Longest time of a request."""
    max_sessions: Annotated[int, Field(ge=1, le=64)] = 3
    """Most requests that it answers at a time."""
    auto_load: Annotated[bool, LATER] = True
    """Whether it starts with the gateway."""
    startup_models: Annotated[tuple[str, ...], LATER] = ()
    """The models to load."""


class EngineConfig(Section):
    """A model that a stage of the pipeline asks."""

    provider: Name
    """Its provider."""
    model: str
    """Its name there."""
    system_prompt: str = ""
    """What it is told to do, in place of the stage's own instructions."""
    system_prompt_file: IncludedPath | None = None
    """The file that holds them."""
    timeout_seconds: Seconds = 60
    """Longest time of a request."""


Engine: TypeAlias = Annotated[
    Annotated[str, Tag(MODEL_NAME)] | Annotated[EngineConfig, Tag(SELECTOR)],
    Discriminator(_kind),
]
"""An agent's name, or a model of its own."""

Percentage: TypeAlias = Annotated[float, Field(ge=0, le=100)]
