"""The built-in providers: where each is, how it is told who asks, and what it can do.

A new OpenAI-compatible provider needs no entry here, only configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.config.routing import AuthStyle, Capability, ListingStyle, RerankStyle

_BASIC: Final[tuple[Capability, ...]] = ("stream_options", "tool_choice_auto", "content_arrays", "tool_calls")


@dataclass(frozen=True, slots=True)
class Vendor:
    """A provider that needs no address in the configuration.

    Attributes:
        name: Its name in the configuration.
        base_url: The address to which `/chat/completions` is added; None if each customer has one of their own.
        key_variable: The environment variable in which its credential is customarily held; None if it needs none.
        auth_style: How the credential is sent.
        capabilities: What it can do.
        max_embedding_inputs: How many inputs it embeds at once, as its documentation says.
        listing_style: In whose form it lists its models.
    """

    name: str
    base_url: str | None
    key_variable: str | None
    auth_style: AuthStyle = "bearer"
    capabilities: frozenset[Capability] = frozenset(_BASIC)
    rerank_style: RerankStyle = "cohere"
    max_embedding_inputs: int = 2048
    listing_style: ListingStyle = "openai"


def _can(*more: Capability, without: tuple[Capability, ...] = ()) -> frozenset[Capability]:
    return frozenset((*_BASIC, *more)) - frozenset(without)


_ALL = (
    Vendor(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        capabilities=_can("audio", "completions", "embeddings", "images", "moderations", "responses", "reasoning", "vision"),
    ),
    Vendor(
        "anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "anthropic",
        _can("reasoning", "vision"),
        listing_style="anthropic",
    ),
    Vendor(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "bearer+x-goog",
        _can("embeddings", "images", "reasoning", "vision"),
        max_embedding_inputs=100,
        listing_style="gemini",
    ),
    Vendor(
        "azure",
        None,
        "AZURE_OPENAI_API_KEY",
        "azure",
        _can("audio", "completions", "embeddings", "images", "responses", "reasoning", "vision"),
    ),
    Vendor("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", capabilities=_can("reasoning")),
    Vendor(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        capabilities=_can("audio", "embeddings", "moderations", "vision", without=("stream_options",)),
    ),
    Vendor("xai", "https://api.x.ai/v1", "XAI_API_KEY", capabilities=_can("images", "responses", "reasoning", "vision")),
    Vendor(
        "groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", capabilities=_can("audio", "responses", "reasoning", "vision")
    ),
    Vendor(
        "together",
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        capabilities=_can("audio", "completions", "embeddings", "images", "rerank", "reasoning", "vision"),
    ),
    Vendor("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", capabilities=_can("reasoning")),
    Vendor("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor("nvidia_free", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor("github", "https://models.github.ai/inference", "GITHUB_TOKEN", capabilities=_can("reasoning", "vision")),
    Vendor(
        "qwen",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        capabilities=_can("reasoning", "vision"),
        max_embedding_inputs=10,
    ),
    Vendor(
        "qwen_free",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        capabilities=_can("reasoning", "vision"),
        max_embedding_inputs=10,
    ),
    Vendor("minimax", "https://api.minimax.io/v1", "MINIMAX_API_KEY", capabilities=_can("reasoning")),
    Vendor("minimax_free", "https://api.minimax.io/v1", "MINIMAX_API_KEY", capabilities=_can("reasoning")),
    Vendor("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        capabilities=_can("completions", "embeddings", "responses", "reasoning", "vision"),
        listing_style="openrouter",
    ),
    Vendor(
        "perplexity",
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        capabilities=_can("reasoning", "vision", without=("tool_calls", "tool_choice_auto")),
    ),
    Vendor(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        "COHERE_API_KEY",
        capabilities=_can("embeddings", "rerank", "reasoning", without=("content_arrays", "tool_choice_auto")),
        max_embedding_inputs=96,
        listing_style="cohere",
    ),
    Vendor("jina", "https://api.jina.ai/v1", "JINA_API_KEY", capabilities=frozenset({"embeddings", "rerank"}), rerank_style="jina"),
    Vendor(
        "voyage",
        "https://api.voyageai.com/v1",
        "VOYAGE_API_KEY",
        capabilities=frozenset({"embeddings", "rerank"}),
        rerank_style="voyage",
    ),
    Vendor(
        "deepinfra",
        "https://api.deepinfra.com/v1/openai",
        "DEEPINFRA_API_KEY",
        capabilities=_can("completions", "embeddings", "reasoning", "vision"),
        max_embedding_inputs=1024,
    ),
    Vendor("zai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor("zai-coding-plan", "https://api.z.ai/api/coding/paas/v4", "ZAI_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor("zen", "https://opencode.ai/zen/v1", "OPENCODE_API_KEY", capabilities=_can("reasoning", "vision")),
    Vendor(
        "ollama",
        "http://127.0.0.1:11434/v1",
        None,
        capabilities=_can("completions", "embeddings", "reasoning", "vision", without=("tool_choice_auto",)),
        listing_style="ollama",
    ),
    Vendor(
        "vllm",
        "http://127.0.0.1:8000/v1",
        None,
        capabilities=_can("completions", "embeddings", "rerank", "responses", "reasoning", "vision"),
    ),
    Vendor(
        "lmstudio",
        "http://127.0.0.1:1234/v1",
        None,
        capabilities=_can("completions", "embeddings", "responses", "reasoning", "vision"),
    ),
    Vendor("bedrock", None, "AWS_BEARER_TOKEN_BEDROCK", capabilities=_can("reasoning", "vision")),
    Vendor("vertex", None, "VERTEX_ACCESS_TOKEN", capabilities=_can("reasoning", "vision")),
)

VENDORS: Final[Mapping[str, Vendor]] = MappingProxyType({vendor.name: vendor for vendor in _ALL})
"""The built-in providers by name."""
