"""What happens to a conversation on its way: redaction, caching, and making it shorter. Nothing of it is acted on yet."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from gateway.config.routing import Engine, Percentage
from gateway.config.section import Count, Name, Ratio, Regex, Seconds, Section

CacheTtl: TypeAlias = Literal["ephemeral", "1h"]


class ContextConfig(Section):
    """What happens to a conversation that is too long."""

    truncation_strategy: Literal["middle-out", "tfidf"] = "middle-out"
    truncation_keep_first_pct: Percentage = 15
    truncation_keep_last_pct: Percentage = 25
    tfidf_query_source: Literal["", "prior_messages", "self"] = ""
    auto_context_skip: bool = False
    auto_reorder_by_latency: bool = False
    hard_limit_tokens: Count = 0

    @model_validator(mode="after")
    def _keeps_at_most_everything(self) -> "ContextConfig":
        if self.truncation_keep_first_pct + self.truncation_keep_last_pct > 100:
            raise ValueError("truncation_keep_first_pct and truncation_keep_last_pct must be at most 100 together")
        return self


class BouncerConfig(Section):
    """What must not pass."""

    enabled: bool = False
    redact_patterns: tuple[Regex, ...] = ()
    redact_presets: tuple[Literal["credentials", "pii"], ...] = ("credentials",)
    redaction_label: str = "[REDACTED]"
    redact_output: bool = False
    redact_output_window: Annotated[int, Field(ge=64, le=1024 * 1024)] = 4096
    blocked_patterns: tuple[Regex, ...] = ()
    fail_open: bool = True
    entropy_enabled: bool = False
    entropy_threshold: Annotated[float, Field(gt=0, le=8)] = 4.5
    entropy_min_token: Annotated[int, Field(ge=4)] = 20
    engine: Engine | None = None


class PrefixCacheConfig(Section):
    """What is done so that a provider's cache is hit."""

    enabled: bool = False
    cache_mode: Literal["explicit", "automatic"] = "explicit"
    pin_system_first: bool = False
    stable_tools: bool = False
    skip_redaction_on_system: bool = False
    cache_system: bool = False
    cache_tools: bool = False
    cache_messages: bool = False
    cache_control_ttl: CacheTtl = "ephemeral"
    cache_system_ttl: CacheTtl | None = None
    cache_tools_ttl: CacheTtl | None = None
    cache_messages_ttl: CacheTtl | None = None
    openai_breakpoint: bool = False
    openai_mode: str | None = None

    @model_validator(mode="after")
    def _has_longer_before_shorter(self) -> "PrefixCacheConfig":
        ttls = [ttl or self.cache_control_ttl for ttl in (self.cache_tools_ttl, self.cache_system_ttl, self.cache_messages_ttl)]
        if "1h" in ttls[ttls.index("ephemeral") :] if "ephemeral" in ttls else False:
            raise ValueError("tools, system and messages follow each other, so a longer ttl must not follow a shorter one")
        return self


class CompactionConfig(Section):
    """What is left out of a conversation."""

    compaction_preset: Literal["aggressive", "balanced", "minimal"] | None = None
    normalize_line_endings: bool | None = None
    trim_trailing_whitespace: bool | None = None
    collapse_blank_lines: bool | None = None
    json_minify: bool | None = None
    prune_stale_tools: bool | None = None
    tool_protection_window: Count = 4
    prune_thoughts: bool | None = None


class WindowConfig(Section):
    """How older messages make room."""

    enabled: bool = False
    mode: Literal["summarize", "truncate", "tfidf"] = "summarize"
    active_messages: Annotated[int, Field(ge=1)] = 6
    trigger_ratio: Ratio = 0.8
    summary_max_runes: Annotated[int, Field(ge=1)] = 4000
    max_context: Annotated[int, Field(ge=1)] = 128_000
    engine: Engine | None = None


class EmbeddingConfig(Section):
    """The model that tells how alike two requests are."""

    provider: Name
    model: str


class ResponseCacheConfig(Section):
    """Answers that are given again."""

    enabled: bool = False
    max_entries: Annotated[int, Field(ge=1)] = 512
    max_entry_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024
    ttl_seconds: Seconds = 3600
    evict_every_seconds: Seconds = 300
    force_refresh_header: str | None = None
    enable_semantic: bool = False
    similarity_threshold: Ratio = 0.95
    embedding: EmbeddingConfig | None = None
