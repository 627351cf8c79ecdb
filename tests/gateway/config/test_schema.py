"""The schema knows every key of a configuration, and says which of them have no effect yet."""

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.config.schema import Config, json_schema
from gateway.config.section import NOT_YET, Section
from tests.gateway.config.written import Written

EVERY_KEY = Path(__file__).with_name("every_key.yaml")
ENVIRONMENT = {"OPENAI_API_KEY": "openai-key", "CLIENT_TOKEN": "the-token"}
WITHOUT_EFFECT = [
    "server.public_url",
    "providers.openai.format_urls",
    "providers.openai.thinking",
    "agents.coder.models[1].format",
    "agents.coder.cache_salt",
    "agents.coder.mcp",
    "context.truncation_strategy",
    "context.truncation_keep_first_pct",
    "context.truncation_keep_last_pct",
    "context.tfidf_query_source",
    "context.hard_limit_tokens",
    "bouncer",
    "prefix_cache",
    "compaction",
    "window",
    "response_cache",
    "mcp_servers",
    "local_engine.timeout_seconds",
    "local_engine.auto_load",
    "local_engine.startup_models",
    "a2a",
    "telemetry.capture_content",
    "telemetry.log_requests",
]


@pytest.fixture
def every_key(written: Written) -> Written:
    return written.write(twinspan_yaml=EVERY_KEY.read_text(), prompts__helper_txt="Be kind.")


def given_keys(value: Any, found: dict[type[BaseModel], set[str]]) -> dict[type[BaseModel], set[str]]:
    """Collects which keys of each kind of section are given somewhere."""
    if isinstance(value, BaseModel):
        found[type(value)] |= value.model_fields_set
        for name in type(value).model_fields:
            given_keys(getattr(value, name), found)
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            given_keys(item, found)
    return found


def test_a_configuration_of_the_reference_gateway_loads_unchanged_with_one_warning(every_key: Written) -> None:
    [warning] = every_key.load(ENVIRONMENT).warnings
    names = warning.removeprefix("This version understands these keys but does not act on them: ").removesuffix(".").split(", ")
    assert sorted(names) == sorted(WITHOUT_EFFECT)


def test_that_configuration_gives_every_key_there_is(every_key: Written) -> None:
    given = given_keys(every_key.load(ENVIRONMENT).config, defaultdict(set))
    assert set(given) == set(Section.__subclasses__())
    missing = {f"{section.__name__}.{key}" for section, keys in given.items() for key in set(section.model_fields) - keys}
    assert missing == set()


def test_a_default_that_is_written_out_has_an_effect_or_a_warning_all_the_same(written: Written) -> None:
    assert written.write(twinspan_yaml="server: {drain_seconds: 30}").load().warnings == ()
    assert len(written.write(twinspan_yaml="context: {hard_limit_tokens: 0}").load().warnings) == 1


def test_times_without_a_zone_are_utc(every_key: Written) -> None:
    [key] = every_key.load(ENVIRONMENT).config.api_keys
    assert key.expires_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_every_key_of_the_json_schema_says_what_it_means() -> None:
    schema = json_schema()
    sections = {"Config": schema} | schema["$defs"]
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, value in section["properties"].items()
        if "description" not in value and "$ref" not in value
    ]
    assert silent == []
    assert all(section["description"] for section in sections.values())
    assert all(section["additionalProperties"] is False for section in sections.values())


def test_the_json_schema_marks_keys_without_effect() -> None:
    schema = json_schema()
    server = schema["$defs"]["ServerConfig"]["properties"]
    assert [key for key, value in server.items() if value.get(NOT_YET)] == ["public_url"]
    assert schema["properties"]["bouncer"][NOT_YET] is True
    assert NOT_YET not in schema["properties"]["providers"]


def test_defaults_are_those_of_the_design() -> None:
    config = Config()
    assert (config.server.listen_addr, config.server.grpc_addr, config.server.metrics_addr) == (":8080", ":50051", "")
    assert (config.server.max_body_bytes, config.server.keepalive_seconds, config.server.drain_seconds) == (10 * 1024**2, 15, 30)
    assert config.server.stream_default is True
    governance = config.governance
    assert governance.retryable_status_codes == (429, 500, 502, 503, 504)
    assert governance.empty_stream_as_error is True
    assert (governance.upstream_timeout_seconds, governance.first_token_timeout_seconds) == (300, 60)
    assert (governance.stream_idle_timeout_seconds, governance.thinking_stream_idle_timeout_seconds) == (300, 600)
    agent = Config.model_validate({"agents": {"a": {"models": ["m"]}}}).agents["a"]
    assert (agent.strategy, agent.cooldown_seconds, agent.failure_threshold, agent.max_retries) == ("fallback", 60, 5, 0)
    assert (config.local_engine.max_sessions, config.state.url) == (3, "memory://")
