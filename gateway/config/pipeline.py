"""What happens to a conversation on its way: redaction, caching, and making it shorter. Nothing of it is acted on yet."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from gateway.config.routing import Engine, Percentage
from gateway.config.section import LATER, Count, Name, Ratio, Regex, Seconds, Section

CacheTtl: TypeAlias = Literal["ephemeral", "1h"]


class ContextConfig(Section):
    """What happens to a conversation that is too long."""

    truncation_strategy: Annotated[Literal["middle-out", "tfidf"], LATER] = "middle-out"
    """What is left out: the middle, or what has least to do with the question."""
    truncation_keep_first_pct: Annotated[Percentage, LATER] = 15
    """How much of the beginning stays, in percent."""
    truncation_keep_last_pct: Annotated[Percentage, LATER] = 25
    """How much of the end stays, in percent."""
    tfidf_query_source: Annotated[Literal["", "prior_messages", "self"], LATER] = ""
    """What messages are compared with."""
    auto_context_skip: bool = False
    """Whether targets are left out whose context window is too small."""
    auto_reorder_by_latency: bool = False
    """Whether the faster of the others come first then, whatever the strategy says."""
    hard_limit_tokens: Annotated[Count, LATER] = 0
    """Most tokens of a conversation; 0 for no limit but the model's."""

    @model_validator(mode="after")
    def _keeps_at_most_everything(self) -> "ContextConfig":
        if self.truncation_keep_first_pct + self.truncation_keep_last_pct > 100:
            raise ValueError("truncation_keep_first_pct and truncation_keep_last_pct must be at most 100 together")
        return self


class BouncerConfig(Section):
    """What must not pass."""

    enabled: bool = False
    """Whether conversations are looked through."""
    redact_patterns: tuple[Regex, ...] = ()
    """Regular expressions of what is struck out."""
    redact_presets: tuple[Literal["credentials", "pii"], ...] = ("credentials",)
    """Built-in patterns of what is struck out."""
    redaction_label: str = "[REDACTED]"
    """What stands in its place."""
    redact_output: bool = False
    """Whether answers are looked through as well."""
    redact_output_window: Annotated[int, Field(ge=64, le=1024 * 1024)] = 4096
    """Most characters of an answer that are held back for it."""
    blocked_patterns: tuple[Regex, ...] = ()
    """Regular expressions of what ends an answer."""
    fail_open: bool = True
    """Whether a conversation passes that could not be looked through."""
    entropy_enabled: bool = False
    """Whether what looks random is struck out."""
    entropy_threshold: Annotated[float, Field(gt=0, le=8)] = 4.5
    """From how many bits a character something looks random."""
    entropy_min_token: Annotated[int, Field(ge=4)] = 20
    """From how many characters it is looked at."""
    engine: Engine | None = None
    """Who judges what no pattern finds: an agent's name, or a model."""


class PrefixCacheConfig(Section):
    """What is done so that a provider's cache is hit."""

    enabled: bool = False
    """Whether anything is."""
    cache_mode: Literal["explicit", "automatic"] = "explicit"
    """Who says what is to be cached: `explicit` the keys below, `automatic` the provider."""
    pin_system_first: bool = False
    """Whether instructions are put first."""
    stable_tools: bool = False
    """Whether tools are sorted."""
    skip_redaction_on_system: bool = False
    """Whether instructions are left as they are."""
    cache_system: bool = False
    """Whether instructions are to be cached."""
    cache_tools: bool = False
    """Whether tools are to be cached."""
    cache_messages: bool = False
    """Whether messages are to be cached."""
    cache_control_ttl: CacheTtl = "ephemeral"
    """How long: `ephemeral` is five minutes."""
    cache_system_ttl: CacheTtl | None = None
    """The same for instructions. The order is tools, instructions, messages, and a longer time must not follow a shorter one."""
    cache_tools_ttl: CacheTtl | None = None
    """The same for tools."""
    cache_messages_ttl: CacheTtl | None = None
    """The same for messages."""
    openai_breakpoint: bool = False
    """Whether OpenAI is told where the stable part ends."""
    openai_mode: str | None = None
    """How OpenAI is to cache."""

    @model_validator(mode="after")
    def _has_longer_before_shorter(self) -> "PrefixCacheConfig":
        ttls = [ttl or self.cache_control_ttl for ttl in (self.cache_tools_ttl, self.cache_system_ttl, self.cache_messages_ttl)]
        if "1h" in ttls[ttls.index("ephemeral") :] if "ephemeral" in ttls else False:
            raise ValueError("tools, system and messages follow each other, so a longer ttl must not follow a shorter one")
        return self


class CompactionConfig(Section):
    """What is left out of a conversation."""

    compaction_preset: Literal["aggressive", "balanced", "minimal"] | None = None
    """What the keys below are where they are not given."""
    normalize_line_endings: bool | None = None
    """Whether CRLF becomes LF."""
    trim_trailing_whitespace: bool | None = None
    """Whether blanks at the ends of lines go."""
    collapse_blank_lines: bool | None = None
    """Whether of several blank lines one stays."""
    json_minify: bool | None = None
    """Whether JSON is written without blanks."""
    prune_stale_tools: bool | None = None
    """Whether results of tools go that later ones replace."""
    tool_protection_window: Count = 4
    """How many of the last results stay in any case."""
    prune_thoughts: bool | None = None
    """Whether earlier reasoning goes."""


class WindowConfig(Section):
    """How older messages make room."""

    enabled: bool = False
    """Whether they do."""
    mode: Literal["summarize", "truncate", "tfidf"] = "summarize"
    """What becomes of them."""
    active_messages: Annotated[int, Field(ge=1)] = 6
    """How many of the last messages stay as they are."""
    trigger_ratio: Ratio = 0.8
    """From how full a context window on."""
    summary_max_runes: Annotated[int, Field(ge=1)] = 4000
    """Most characters of the summary."""
    max_context: Annotated[int, Field(ge=1)] = 128_000
    """The context window of models that none is known of, in tokens."""
    engine: Engine | None = None
    """Who writes the summary: an agent's name, or a model."""


class EmbeddingConfig(Section):
    """The model that tells how alike two requests are."""

    provider: Name
    """Its provider."""
    model: str
    """Its name there."""


class ResponseCacheConfig(Section):
    """Answers that are given again."""

    enabled: bool = False
    """Whether any are."""
    max_entries: Annotated[int, Field(ge=1)] = 512
    """Most answers that are kept."""
    max_entry_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024
    """Largest answer that is kept."""
    ttl_seconds: Seconds = 3600
    """How long one is kept."""
    evict_every_seconds: Seconds = 300
    """How often old ones are looked for."""
    force_refresh_header: str | None = None
    """A header with which a request is answered anew."""
    enable_semantic: bool = False
    """Whether requests that mean the same count as the same."""
    similarity_threshold: Ratio = 0.95
    """From which similarity they do."""
    embedding: EmbeddingConfig | None = None
    """The model that tells how alike they are."""
