"""The attributes of the core's spans, from the messages that a chat is made of.

Names are those of the semantic conventions for generative AI and HTTP, and `twinspan.` where there is no convention.
`gateway.telemetry.tracing` asks for them only if a span is recorded. Nothing here holds a message's text.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from opentelemetry.util.types import AttributeValue
from twinspan.v1 import chat_pb2, content_pb2

# A request's fields by name. `max_completion_tokens` comes last in the message, so that it wins over the older `max_tokens`.
_REQUEST_FIELDS: Mapping[str, str] = {
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
    "model": "gen_ai.request.model",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
}

_USAGE_FIELDS: Mapping[str, str] = {
    "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}

# Providers whose name in the semantic conventions is not the one they have here.
_PROVIDER_NAMES: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}

_PORTS: Mapping[str, int] = {"http": 80, "https": 443}

Attributes = dict[str, AttributeValue]


def provider_name(provider: str) -> str:
    """Returns a provider's name in the semantic conventions: its own, unless they know it by another."""
    return _PROVIDER_NAMES.get(provider, provider)


def of_request(chat: chat_pb2.ChatRequest, *, stream: bool) -> Attributes:
    """Returns what is asked of a model, without what is said to it.

    Args:
        chat: The request.
        stream: Whether the caller reads the answer as a stream.
    """
    attributes: Attributes = {"gen_ai.operation.name": "chat"}
    if stream:
        attributes["gen_ai.request.stream"] = True
    for field, value in chat.ListFields():
        name = _REQUEST_FIELDS.get(field.name)
        if name is not None:
            attributes[name] = value
    if chat.n > 1:
        attributes["gen_ai.request.choice.count"] = chat.n
    if chat.stop:
        attributes["gen_ai.request.stop_sequences"] = tuple(chat.stop)
    if chat.HasField("response_format"):
        attributes["gen_ai.output.type"] = "text" if chat.response_format.type == "text" else "json"
    return attributes


def of_answer(
    provider: str,
    attempts: int,
    info: chat_pb2.ResponseInfo | None,
    usage: content_pb2.Usage | None,
    finish_reasons: Iterable[content_pb2.FinishReason.ValueType],
) -> Attributes:
    """Returns what is known of an answer, without what it says.

    Args:
        provider: The provider that answered; empty if none did.
        attempts: How many attempts were made.
        info: What identifies the answer, if there is one.
        usage: What it consumed, if the provider said so.
        finish_reasons: Why each choice ended, in order.
    """
    attributes: Attributes = {"twinspan.attempts": attempts}
    if provider:
        attributes["gen_ai.provider.name"] = provider_name(provider)
    if info is not None:
        attributes["gen_ai.response.id"] = info.id
        attributes["gen_ai.response.model"] = info.model
    if usage is not None:
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        for field, value in usage.ListFields():
            name = _USAGE_FIELDS.get(field.name)
            if name is not None:
                attributes[name] = value
    reasons = tuple(content_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower() for reason in finish_reasons)
    if reasons:
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes


def of_attempt(provider: str, model: str, number: int, url: str, retry_reason: str, method: str = "POST") -> Attributes:
    """Returns whom an attempt asks, and why it is made.

    Args:
        provider: The provider's name.
        model: The model's name.
        number: Which attempt of its chat it is, from 1.
        url: Where the request goes; empty if it does not go over HTTP. Credentials and query are left out.
        retry_reason: The error kind of the attempt before it; empty if it is the first.
        method: The HTTP method.
    """
    attributes: Attributes = {"twinspan.provider": provider, "twinspan.model": model, "twinspan.attempt": number}
    if retry_reason:
        attributes["twinspan.retry_reason"] = retry_reason
    if not url:
        return attributes
    parts = urlsplit(url)
    attributes["http.request.method"] = method
    attributes["url.full"] = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    attributes["server.address"] = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme)
    if port is not None:
        attributes["server.port"] = port
    return attributes
