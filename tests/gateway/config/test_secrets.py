"""Secrets come from the first place that has any, and belong to nobody else."""

from pathlib import Path

import pytest

from gateway.config.secrets import read_secrets
from tests.gateway.config.written import Written


def token(written: Written, environment: dict[str, str], system: str = "system") -> object:
    """The administrator's token, by which the files of these tests are told apart."""
    secrets = read_secrets(environment, written.root / system)
    assert secrets.problems == []
    return secrets.values.get("client_token")


def holding(text: str) -> str:
    return f'{{"client_token": "{text}"}}'


def test_the_first_place_that_has_secrets_counts(written: Written) -> None:
    written.put("credentials/secrets", holding("1"))
    written.put("credentials/secrets.d/a.json", holding("2"))
    written.put("own/a.json", holding("3"))
    written.put("system/a.json", holding("4"))
    environment = {"CREDENTIALS_DIRECTORY": str(written.root / "credentials"), "TWINSPAN_SECRETS_DIR": str(written.root / "own")}
    for expected, remove in (("1", "credentials/secrets"), ("2", "credentials/secrets.d/a.json"), ("3", "own/a.json"), ("4", None)):
        assert token(written, environment) == expected
        if remove is not None:
            (written.root / remove).unlink()
    assert token(written, {}) == "4"
    assert token(written, {}, "gone") is None


def test_only_visible_json_files_of_a_directory_are_read(written: Written) -> None:
    written.put("own/a.json", holding("1"))
    for name in ("own/b.yaml", "own/.c.json", "own/d.json~"):
        written.put(name, "nonsense")
    assert token(written, {"TWINSPAN_SECRETS_DIR": str(written.root / "own")}) == "1"


def test_files_of_one_place_are_merged_in_alphabetical_order(written: Written) -> None:
    first = '{"client_token": "1", "provider_keys": {"a": "1", "b": "1"}, "api_keys": [{"name": "a"}]} // the first'
    written.put("own/1.json", first)
    written.put("own/2.json", '{"client_token": "2", "provider_keys": {"b": "2"}, "api_keys": [{"name": "b"}]}')
    secrets = read_secrets({"TWINSPAN_SECRETS_DIR": str(written.root / "own")})
    assert secrets.values == {
        "client_token": "2",
        "provider_keys": {"a": "1", "b": "2"},
        "api_keys": [{"name": "a"}, {"name": "b"}],
    }
    assert secrets.sources == [written.root / "own/1.json", written.root / "own/2.json"]


def test_secrets_complete_those_of_the_configuration_and_win_over_them(written: Written) -> None:
    key = "{{name: {}, token: {}-0123456789abcdef}}"
    written.write(
        twinspan_yaml=f"client_token: 'a'\nprovider_keys: {{openai: a, groq: a}}\napi_keys: [{key.format('own', 'a')}]\n",
        secrets__a_json='{"client_token": "b", "provider_keys": {"groq": "b", "xai": "b"}, '
        '"api_keys": [{"name": "secret", "token": "b-0123456789abcdef"}]}',
    )
    loaded = written.load({"TWINSPAN_SECRETS_DIR": str(written.root / "secrets")})
    config = loaded.config
    assert config.client_token is not None
    assert config.client_token.get_secret_value() == "b"
    assert {name: key.get_secret_value() for name, key in config.provider_keys.items()} == {"openai": "a", "groq": "b", "xai": "b"}
    assert [key.name for key in config.api_keys] == ["secret", "own"]
    assert loaded.sources == (written.root / "twinspan.yaml", written.root / "secrets/a.json")


def test_a_reference_stands_for_a_variable_of_the_environment(written: Written) -> None:
    written.put("secrets/a.json", '{"client_token": "${TOKEN}", "provider_keys": {"openai": "${KEY}"}}')
    environment = {"TWINSPAN_SECRETS_DIR": str(written.root / "secrets"), "TOKEN": "t", "KEY": "k"}
    config = written.load(environment).config
    assert config.client_token is not None
    assert (config.client_token.get_secret_value(), config.provider_keys["openai"].get_secret_value()) == ("t", "k")
    del environment["KEY"]
    assert written.problems(environment | {"TOKEN": ""}) == [
        "secrets/a.json: client_token: the environment variable TOKEN is not set.",
        "secrets/a.json: provider_keys.openai: the environment variable KEY is not set.",
    ]


def test_mistakes_in_secrets_are_named_with_their_file(written: Written) -> None:
    written.put("secrets/1.json", '{"api_keys": [{"name": "a", "token": "0123456789abcdef"}], "provider_keys": {"opnai": "k"}}')
    written.put("secrets/2.json", '{"api_keys": [{"name": "a", "token": "0123456789abcdef"}], "api_key": "k"}')
    written.put("secrets/3.json", '["a"]')
    written.put("secrets/4.json", "{")
    written.put("secrets/5.json", b"\xff")
    assert written.problems({"TWINSPAN_SECRETS_DIR": str(written.root / "secrets")}) == [
        "secrets/2.json: api_key: there is no such secret. Did you mean 'api_keys'?",
        "secrets/3.json: must be a mapping with client_token, api_keys, provider_keys.",
        "secrets/4.json: line 1, column 2: Expecting property name enclosed in double quotes.",
        "secrets/5.json: is not UTF-8 (byte 0).",
        "secrets/1.json: provider_keys.opnai: there is no such provider. Did you mean 'openai'?",
        "secrets/2.json: api_keys[1].name: 'a' is the name of api_keys[0] too.",
        "secrets/2.json: api_keys[1].token: is the same as another key's.",
    ]


@pytest.mark.parametrize("content", ["", "{}", '{"client_token": null, "api_keys": null, "provider_keys": null}'])
def test_a_secrets_file_may_hold_nothing(written: Written, content: str) -> None:
    path = written.put("secrets/a.json", content)
    assert read_secrets({"TWINSPAN_SECRETS_DIR": str(path.parent)}).values == {}


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o604, True), (0o660, True)]
)
def test_a_file_that_others_can_read_or_the_group_can_change_brings_a_warning(written: Written, mode: int, warned: bool) -> None:
    path = written.put("secrets/a.json", holding("1"), mode)
    warnings = read_secrets({"TWINSPAN_SECRETS_DIR": str(path.parent)}).warnings
    assert warnings == ([f"{path} can be read by others: chmod 600 {path}"] if warned else [])


def test_a_credentials_directory_without_secrets_is_passed_over(written: Written, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    written.put("own/a.json", holding("1"))
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"), "TWINSPAN_SECRETS_DIR": str(tmp_path / "own")}
    assert token(written, environment) == "1"
