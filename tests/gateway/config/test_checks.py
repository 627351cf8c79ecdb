"""The parts of a configuration must fit together."""

import pytest

from tests.gateway.config.written import Written

UNPLACED = "nothing says where it is: give its base_url."
KEYLESS = "has no credential: give api_key, put it into provider_keys of a secrets file, or set"


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        ("providers: {self-hosted: {}}", [f"providers.self-hosted: {UNPLACED}"]),
        ("providers: {antropic: {}}", [f"providers.antropic: {UNPLACED} Did you mean 'anthropic'?"]),
        ("providers: {azure: {api_key: a}}", [f"providers.azure: {UNPLACED}"]),
        ("providers: {openai: {}, groq: {api_key: a}}", [f"providers.openai: {KEYLESS} OPENAI_API_KEY."]),
        ("provider_keys: {opnai: a}", ["provider_keys.opnai: there is no such provider. Did you mean 'openai'?"]),
        (
            "providers: {ollama: {}}\nagents: {a: {models: [m, {provider: olama}, {provider: xai}]}}",
            [
                "agents.a.models[1].provider: there is no provider 'olama'. Did you mean 'ollama'?",
                "agents.a.models[2].provider: there is no provider 'xai'.",
            ],
        ),
        (
            "client_token: 0123456789abcdef\napi_keys: [{name: a, token: 0123456789abcdef}]",
            ["api_keys[0].token: is the same as another key's."],
        ),
        (
            "api_keys: [{name: client_token, token: 0123456789abcdef}]",
            ["api_keys[0].name: 'client_token' is the name under which the administrator's credential owns files."],
        ),
        (
            "teams: {research: {}}\napi_keys: [{name: a, token: 0123456789abcdef, team: reserch}]",
            ["api_keys[0].team: there is no team 'reserch'. Did you mean 'research'?"],
        ),
        (
            "teams: {research: {rpm: many}}\napi_keys: [{name: a, token: 0123456789abcdef, team: research}]",
            ["teams.research.rpm: must be a valid integer, unable to parse string as an integer."],
        ),
        (
            "keys: {url: 'mysql://db.example/keys'}",
            ["keys.url: string should match pattern '^(sqlite://(/.*)?|postgres(ql)?://.+)$'."],
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(written: Written, document: str, problems: list[str]) -> None:
    written.write(twinspan_yaml=document)
    assert written.problems() == [f"twinspan.yaml: {problem}" for problem in problems]


@pytest.mark.parametrize(
    "document",
    [
        "providers: {local: {}}\nagents: {a: {models: [{provider: local}]}}",
        "agents: {a: {models: [{provider: local}]}}",
        "providers: {ollama: {}, vllm: {}, lmstudio: {}}",
        "providers: {openai: {base_url: 'http://127.0.0.1:9/v1'}}",
        "providers: {openai: {auth_style: none}}",
        "providers: {azure: {url: 'https://me.example/openai/deployments/d/chat/completions?api-version=1', api_key: a}}",
        "providers: {mine: {base_url: 'https://mine.example'}}\nprovider_keys: {mine: a}",
        "teams: {t: {rpm: 5}}\napi_keys: [{name: a, token: 0123456789abcdef, team: t, budget_period: week}]",
        "keys: {url: 'sqlite:///srv/keys.db'}",
        "keys: {url: 'postgresql://twinspan@db.example/keys?sslmode=verify-full'}",
        "api_keys: [{name: a, token: 0123456789abcdef}, {name: b, token: 0123456789abcdeg}]",
    ],
)
def test_parts_that_fit_are_taken(written: Written, document: str) -> None:
    written.write(twinspan_yaml=document)
    assert written.load().warnings == ()
