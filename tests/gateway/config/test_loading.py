"""A configuration is found, put together and checked as a whole."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.config.loading import ConfigError, load
from gateway.config.schema import Config
from tests.gateway.config.written import Written

ACME = "providers: {acme: {base_url: 'https://acme.example/v1'}}\n"


# Where it is looked for


def test_without_any_file_the_defaults_hold(written: Written) -> None:
    loaded = written.load()
    assert (loaded.config, loaded.sources, loaded.warnings, loaded.system_prompts) == (Config(), (), (), {})


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}", "---\n"])
def test_an_empty_file_stands_for_the_defaults(written: Written, content: str) -> None:
    loaded = written.write(twinspan_yaml=content).load()
    assert loaded.config == Config()
    assert loaded.sources == (written.root / "twinspan.yaml",)


def test_a_section_that_is_left_empty_has_its_defaults(written: Written) -> None:
    written.write(twinspan_yaml="server:\ngovernance:\nproviders:\nclient_token:\napi_keys:\nprovider_keys:\n")
    assert written.load().config == Config()


def port(written: Written, environment: dict[str, str] | None = None, path: str | None = None) -> str:
    """The port of what was loaded, by which the files of these tests are told apart."""
    return written.load(environment, path).config.server.listen_addr


def listening(number: int) -> str:
    return f"server: {{listen_addr: ':{number}'}}"


def test_the_first_place_that_names_a_configuration_counts(written: Written) -> None:
    written.write(given_yaml=listening(1), file_yaml=listening(2), dir__config_yaml=listening(3), twinspan_yaml=listening(4))
    environment = {"TWINSPAN_CONFIG_FILE": str(written.root / "file.yaml"), "TWINSPAN_CONFIG_DIR": str(written.root / "dir")}
    assert port(written, environment, "given.yaml") == ":1"
    assert port(written, environment) == ":2"
    del environment["TWINSPAN_CONFIG_FILE"]
    assert port(written, environment) == ":3"
    assert port(written) == ":4"


def test_a_variable_that_is_empty_counts_as_unset(written: Written) -> None:
    written.write(twinspan_yaml=listening(4))
    unset = {"TWINSPAN_CONFIG_FILE": "", "TWINSPAN_CONFIG_DIR": "", "HOST": "", "PORT": "", "CREDENTIALS_DIRECTORY": ""}
    assert port(written, unset) == ":4"


def test_a_directory_may_be_given_in_place_of_a_file(written: Written) -> None:
    written.write(dir__config_yaml=listening(3))
    assert port(written, path="dir") == ":3"


@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.json", "config.jsonc"])
def test_a_directory_is_read_from_its_config_file(written: Written, name: str) -> None:
    written.put(f"dir/{name}", '{"server": {"listen_addr": ":3"}}')
    assert port(written, path="dir") == ":3"


def test_a_directory_with_config_d_is_read_from_that_alone(written: Written) -> None:
    written.write(dir__config_yaml=listening(1))
    written.put("dir/config.d/a.yaml", listening(2))
    loaded = written.load(path="dir")
    assert loaded.config.server.listen_addr == ":2"
    assert loaded.sources == (written.root / "dir/config.d/a.yaml",)


def test_files_that_editors_and_packages_leave_are_passed_over(written: Written) -> None:
    written.put("dir/config.d/a.yaml", listening(2))
    for name in (".a.yaml", ".a.yaml.swp", "a.yaml~", "a.yaml.bak", "README.md"):
        written.put(f"dir/config.d/{name}", "server: nonsense")
    assert port(written, path="dir") == ":2"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("gone.yaml", "gone.yaml: there is no such file. Check --config and TWINSPAN_CONFIG_FILE."),
        ("bare", "bare: has neither config.d/*.yaml or *.json nor config.yaml or config.json."),
        ("list.yaml", "list.yaml: must be a mapping of sections."),
        ("word.yaml", "word.yaml: must be a mapping of sections."),
        ("latin.yaml", "latin.yaml: is not UTF-8 (byte 2)."),
        ("broken.yaml", "broken.yaml: line 2, column 1: while scanning a quoted scalar, found unexpected end of stream."),
        ("broken.json", "broken.json: line 2, column 2: Expecting property name enclosed in double quotes."),
        ("a" * 300, f"{'a' * 300}: cannot be read: File name too long."),
    ],
)
def test_what_is_no_configuration_is_refused_with_a_reason(written: Written, path: str, problem: str) -> None:
    written.write(list_yaml="- server\n", word_yaml="server", latin_yaml=b"a:\xff", broken_yaml="server: 'x\n")
    written.write(broken_json="{ // a comment\n 'server': {}}", bare__README_md="")
    assert written.problems(path=path) == [problem]


def test_a_directory_that_does_not_exist_is_refused(written: Written) -> None:
    environment = {"TWINSPAN_CONFIG_DIR": str(written.root / "gone")}
    assert written.problems(environment) == ["gone: there is no such directory. Check TWINSPAN_CONFIG_DIR."]


# How files are put together


def test_maps_are_merged_by_key_and_sections_come_from_the_last_file(written: Written) -> None:
    written.put("dir/config.d/10.yaml", ACME + "agents: {fast: {models: [a]}, slow: {models: [b]}}\nserver: {drain_seconds: 1}\n")
    written.put("dir/config.d/20.json", '{"agents": {"fast": {"models": ["c"]}}, "server": {"keepalive_seconds": 2}}')
    written.put("dir/config.d/30.yaml", "providers: {other: {base_url: 'https://other.example'}}\n")
    config = written.load(path="dir").config
    assert {name: agent.models for name, agent in config.agents.items()} == {"fast": ("c",), "slow": ("b",)}
    assert list(config.providers) == ["acme", "other"]
    assert config.server == Config.model_validate({"server": {"keepalive_seconds": 2}}).server


NAMES = st.sampled_from(["a", "b", "c"])
AGENTS = st.dictionaries(NAMES, st.fixed_dictionaries({"models": st.lists(NAMES, min_size=1, max_size=2)}), max_size=3)


@given(st.lists(AGENTS, min_size=1, max_size=4))
def test_a_directory_holds_what_its_files_say_one_after_the_other(tmp_path_factory: Any, parts: list[dict[str, Any]]) -> None:
    root: Path = tmp_path_factory.mktemp("merge")
    expected: dict[str, Any] = {}
    (root / "config.d").mkdir()
    for number, agents in enumerate(parts):
        write, suffix = (yaml.safe_dump, "yaml") if number % 2 else (json.dumps, "json")
        (root / "config.d" / f"{number}.{suffix}").write_text(write({"agents": agents}))
        expected |= agents
    assert load(str(root), {}).config == Config.model_validate({"agents": expected})


def test_each_mistake_of_a_directory_is_named_with_its_own_file(written: Written) -> None:
    written.put("dir/config.d/1.yaml", "providers: {a: {base_url: nowhere}}\nserver: {workers: 0}\n")
    written.put("dir/config.d/2.yaml", "providers: {b: {base_url: nowhere}}\ndebug: {pprof_enabled: maybe}\n")
    written.put("dir/config.d/3.yaml", "agents: 3\n")
    written.put("dir/config.d/4.yaml", "[")
    reason = "must be an absolute URL such as https://api.example.com/v1."
    assert sorted(written.problems(path="dir")) == [
        "dir/config.d/1.yaml: providers.a.base_url: " + reason,
        "dir/config.d/1.yaml: server.workers: must be greater than or equal to 1.",
        "dir/config.d/2.yaml: debug.pprof_enabled: must be a valid boolean, unable to interpret input.",
        "dir/config.d/2.yaml: providers.b.base_url: " + reason,
        "dir/config.d/3.yaml: agents: must be a mapping.",
        "dir/config.d/4.yaml: line 2, column 1: while parsing a flow node, did not find expected node content.",
    ]


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_a_map_that_is_none_in_one_file_is_a_mistake_whatever_others_say(written: Written, order: tuple[str, str]) -> None:
    written.put(f"dir/config.d/{order[0]}.yaml", "providers: nonsense")
    written.put(f"dir/config.d/{order[1]}.yaml", ACME)
    assert written.problems(path="dir") == [f"dir/config.d/{order[0]}.yaml: providers: must be a mapping."]


# All mistakes at once


STRATEGIES = "'round-robin', 'fallback', 'sticky', 'weighted', 'latency', 'cost', 'least-busy' or 'balanced'"


def test_mistakes_of_every_kind_are_reported_together(written: Written) -> None:
    written.write(
        twinspan_yaml="""
            server: {lisen_addr: ":1"}
            providers: {acme: {base_url: 'https://acme.example', timeout_seconds: -1}, self-hosted: {}}
            agents:
              fast: {models: [{provider: acem}, {provider: acme}]}
              slow: {models: [m], strategy: random}
              told: {models: [m], system_prompt_file: gone.txt}
            api_keys: [{name: a, token: 0123456789abcdef}, {name: a, token: 0123456789abcdef}]
        """,
        secrets__more_json='{"client_tokn": "x"}',
    )
    assert written.problems({"TWINSPAN_SECRETS_DIR": str(written.root / "secrets"), "PORT": "http"}) == [
        "secrets/more.json: client_tokn: there is no such secret. Did you mean 'client_token'?",
        "PORT: 'http' is not a port. Give a number of 0 to 65535.",
        "twinspan.yaml: server.lisen_addr: there is no such key. Did you mean 'listen_addr'?",
        "twinspan.yaml: providers.acme.timeout_seconds: must be greater than 0.",
        f"twinspan.yaml: agents.slow.strategy: must be {STRATEGIES}.",
        "twinspan.yaml: providers.self-hosted: nothing says where it is: give its base_url.",
        "twinspan.yaml: agents.fast.models[0].provider: there is no provider 'acem'. Did you mean 'acme'?",
        "twinspan.yaml: api_keys[1].name: 'a' is the name of api_keys[0] too.",
        "twinspan.yaml: api_keys[1].token: is the same as another key's.",
        "twinspan.yaml: agents.told.system_prompt_file: gone.txt cannot be read: No such file or directory.",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        "openai: {timeout_seconds: x}}",
        "openai: 3}",
        "openai: {base_url: ''}}",
        "openai: {}}\nprovider_keys: {openai: 3}",
        "openai: {}}\nprovider_keys: 3",
    ],
)
def test_one_mistake_is_not_reported_as_two(written: Written, wrong: str) -> None:
    written.write(twinspan_yaml=f"agents: {{a: {{models: [{{provider: openai}}]}}}}\nproviders: {{{wrong}\n")
    assert len(written.problems()) == 1


def test_an_error_counts_its_mistakes(written: Written) -> None:
    written.write(one_yaml="a: 1", two_yaml="a: 1\nb: 2")
    with pytest.raises(ConfigError, match=r"^The configuration has a mistake:\n  .*one\.yaml: a: "):
        written.load(path="one.yaml")
    with pytest.raises(ConfigError, match=r"^The configuration has 2 mistakes:\n  .*: a: .*\n  .*: b: "):
        written.load(path="two.yaml")


# PORT and HOST


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (":8080", {"PORT": "9"}, ":9"),
        ("127.0.0.1:8080", {"PORT": "0"}, "127.0.0.1:0"),
        ("127.0.0.1:8080", {"HOST": "10.0.0.1"}, "10.0.0.1:8080"),
        (":8080", {"HOST": "localhost", "PORT": "9"}, "localhost:9"),
        (":8080", {"HOST": "::1"}, "[::1]:8080"),
        (":8080", {"HOST": "[::1]"}, "[::1]:8080"),
        ("[::]:8080", {"PORT": "9"}, "[::]:9"),
    ],
)
def test_port_and_host_override_where_rest_is_served(
    written: Written, configured: str, environment: dict[str, str], expected: str
) -> None:
    written.write(twinspan_yaml=f"server: {{listen_addr: '{configured}'}}")
    assert port(written, environment) == expected


def test_port_and_host_hold_without_a_file_too(written: Written) -> None:
    assert port(written, {"HOST": "127.0.0.1", "PORT": "9"}) == "127.0.0.1:9"


@pytest.mark.parametrize("value", ["65536", "-1", "http", "8 0", "٨", "9" * 5000])
def test_a_port_that_is_none_is_refused(written: Written, value: str) -> None:
    assert written.problems({"PORT": value}) == [f"PORT: '{value}' is not a port. Give a number of 0 to 65535."]


@pytest.mark.parametrize("value", ["my host", "http://a", "a/b", "[::1", "127.0.0.1:80"])
def test_a_host_that_is_none_is_refused(written: Written, value: str) -> None:
    reason = "is not a host to listen on. Give a name or an IP address, without a port."
    assert written.problems({"HOST": value}) == [f"HOST: '{value}' {reason}"]


def test_host_and_port_may_both_be_wrong(written: Written) -> None:
    assert [problem.partition(":")[0] for problem in written.problems({"HOST": "a b", "PORT": "x"})] == ["HOST", "PORT"]


@pytest.mark.parametrize("server", ["{listen_addr: 8080}", "3"])
def test_port_does_not_hide_a_mistake_in_the_file(written: Written, server: str) -> None:
    written.write(twinspan_yaml=f"server: {server}")
    assert len(written.problems({"PORT": "9"})) == 1


# Credentials of providers


def credential(written: Written, environment: dict[str, str] | None = None) -> str | None:
    key = written.load(environment).config.providers["openai"].api_key
    return key.get_secret_value() if key else None


def test_a_credential_comes_from_the_provider_then_the_secrets_then_the_customary_variable(written: Written) -> None:
    environment = {"OPENAI_API_KEY": "of-the-variable"}
    secrets = "provider_keys: {openai: of-the-secrets}\n"
    written.write(twinspan_yaml=secrets + "providers: {openai: {api_key: of-the-key}}")
    assert credential(written, environment) == "of-the-key"
    written.write(twinspan_yaml=secrets + "providers: {openai: {accounts: [{id: a, credential: of-the-account}]}}")
    assert credential(written, environment) is None
    written.write(twinspan_yaml=secrets + "providers: {openai: {}}")
    assert credential(written, environment) == "of-the-secrets"
    written.write(twinspan_yaml="providers: {openai: }")
    assert credential(written, environment) == "of-the-variable"


def test_a_built_in_provider_whose_key_is_among_the_secrets_needs_no_entry(written: Written) -> None:
    written.write(twinspan_yaml="provider_keys: {openai: abc}")
    assert written.load().config.providers["openai"].api_key == SecretStr("abc")


def test_a_built_in_provider_that_an_agent_names_needs_only_its_customary_variable(written: Written) -> None:
    written.write(twinspan_yaml="agents: {fast: {models: [{provider: openai, model: gpt}]}}")
    assert credential(written, {"OPENAI_API_KEY": "abc"}) == "abc"
    assert written.problems() == ["twinspan.yaml: agents.fast.models[0].provider: there is no provider 'openai'."]


def test_a_customary_variable_alone_configures_nothing(written: Written) -> None:
    assert written.load({"OPENAI_API_KEY": "abc"}).config.providers == {}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a b", "schlüssel", "a\udc80"])
def test_a_customary_variable_that_cannot_be_sent_is_refused_without_showing_it(written: Written, value: str) -> None:
    written.write(twinspan_yaml="providers: {openai: {}}")
    assert written.problems({"OPENAI_API_KEY": value}) == ["OPENAI_API_KEY: must be printable ASCII without blanks."]


# Files that a configuration points to


def test_instructions_come_from_the_configuration_or_a_file_below_it(written: Written) -> None:
    written.put("dir/prompts/grüße.txt", "Sei höflich.\n")
    agents = (
        "{a: {models: [m], system_prompt: Be brief.}, b: {models: [m], system_prompt_file: prompts/grüße.txt}, c: {models: [m]}}"
    )
    written.put("dir/config.yaml", f"agents: {agents}")
    assert written.load(path="dir").system_prompts == {"a": "Be brief.", "b": "Sei höflich.", "c": ""}


def test_files_outside_of_the_configuration_are_refused(written: Written) -> None:
    written.put("outside.txt", "secret")
    (written.root / "dir").mkdir()
    (written.root / "dir/link.txt").symlink_to(written.root / "outside.txt")
    paths = {"a": "../outside.txt", "b": str(written.root / "outside.txt"), "c": "link.txt", "d": "x/../../outside.txt"}
    agents = {name: {"models": ["m"], "system_prompt_file": path} for name, path in paths.items()}
    written.put("dir/config.json", json.dumps({"agents": agents}))
    assert written.problems(path="dir") == [
        "dir/config.json: agents.a.system_prompt_file: must not contain '..'.",
        "dir/config.json: agents.b.system_prompt_file: must lie below dir.",
        "dir/config.json: agents.c.system_prompt_file: must lie below dir.",
        "dir/config.json: agents.d.system_prompt_file: must not contain '..'.",
    ]


def test_paths_start_from_the_configurations_directory(written: Written) -> None:
    written.put("dir/config.yaml", "server: {tls: {cert: tls/cert.pem, key: /etc/key.pem}}")
    tls = written.load(path="dir").config.server.tls
    assert tls is not None
    assert (tls.cert, tls.key) == (written.root / "dir/tls/cert.pem", Path("/etc/key.pem"))


# Warnings


def test_one_warning_names_every_key_without_effect(written: Written) -> None:
    written.write(
        twinspan_yaml="""
            server: {public_url: 'https://a.example', drain_seconds: 1}
            governance: {ratelimit_max_rpm: 1}
            providers:
              acme: {base_url: 'https://acme.example', accounts: [{id: a, credential: a}, {id: b, credential: b}]}
            agents:
              a: {strategy: weighted, models: [{provider: acme, model: m, weight: 2}]}
              b: {strategy: round-robin, models: [m]}
            bouncer: {enabled: true}
            mcp_servers: {tools: {url: 'https://tools.example'}}
        """
    )
    [warning] = written.load().warnings
    assert warning == ("This version understands these keys but does not act on them: server.public_url, bouncer, mcp_servers.")


def test_secrets_in_a_file_that_others_may_read_bring_a_warning(written: Written) -> None:
    path = written.put("twinspan.yaml", "client_token: abc", mode=0o644)
    assert written.load().warnings == (f"{path} holds secrets and can be read by others: chmod 600 {path}",)
    written.put("twinspan.yaml", "client_token: abc")
    assert written.load().warnings == ()
    written.put("twinspan.yaml", listening(1), mode=0o644)
    assert written.load().warnings == ()
