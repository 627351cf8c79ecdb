"""The built-in providers are those that the documentation promises, and each can be reached by its key alone."""

from gateway.config.vendors import VENDORS
from tests.gateway.config.written import Written

PROMISED = (
    *("openai", "anthropic", "gemini", "azure", "deepseek", "mistral", "xai", "groq", "together", "sambanova", "cerebras"),
    *("nvidia", "nvidia_free", "github", "qwen", "qwen_free", "minimax", "minimax_free", "moonshot", "openrouter", "perplexity"),
    *("cohere", "jina", "voyage", "deepinfra", "zai", "zai-coding-plan", "zen", "ollama", "vllm", "lmstudio", "bedrock", "vertex"),
)
OWN_ADDRESS = {"azure", "bedrock", "vertex"}
"""Of these every customer has an address of their own."""


def test_every_promised_provider_is_built_in() -> None:
    assert tuple(VENDORS) == PROMISED
    assert {name for name, vendor in VENDORS.items() if vendor.base_url is None} == OWN_ADDRESS


def test_every_built_in_provider_with_an_address_needs_its_customary_variable_at_most(written: Written) -> None:
    names = [name for name in PROMISED if name not in OWN_ADDRESS]
    written.write(twinspan_yaml="providers:\n" + "".join(f"  {name}:\n" for name in names))
    environment = {vendor.key_variable: "abc" for vendor in VENDORS.values() if vendor.key_variable}
    providers = written.load(environment).config.providers
    assert list(providers) == names
    assert {name for name, provider in providers.items() if provider.api_key is None} == {"ollama", "vllm", "lmstudio"}


def test_capabilities_differ_where_the_wire_does() -> None:
    assert "tool_calls" not in VENDORS["perplexity"].capabilities
    assert "content_arrays" not in VENDORS["cohere"].capabilities
    assert "tool_choice_auto" not in VENDORS["ollama"].capabilities
    assert VENDORS["openai"].capabilities >= {"stream_options", "tool_choice_auto", "content_arrays", "tool_calls", "vision"}


def test_credentials_travel_as_each_provider_wants_them() -> None:
    special = {name: vendor.auth_style for name, vendor in VENDORS.items() if vendor.auth_style != "bearer"}
    assert special == {"anthropic": "anthropic", "gemini": "bearer+x-goog", "azure": "azure"}


def test_nothing_can_be_added_to_the_built_in_providers() -> None:
    assert not hasattr(VENDORS, "__setitem__")
