"""Values are checked where they are written, and a mistake says what is wrong with the value and what would be right."""

import pytest

from gateway.config.section import is_host, is_port
from tests.gateway.config.written import Written

URL = "must be an absolute URL such as https://api.example.com/v1."
ADDRESS = "must be host:port or :port, with a port of 0 to 65535 and IPv6 addresses in brackets."
ORIGIN = "must be '*', or an origin as browsers send it, such as https://app.example.com: lower case, no path."
NAME = "must be 1 to 64 letters, digits, dots, dashes and underscores, and begin with a letter or digit."
BLANKS = "must not contain blanks, line breaks or a fragment."
IN_URL = "must not contain a credential, which would end up in logs: give it where credentials belong."
PRINTABLE = "must be printable ASCII without blanks."
CONTROL = "must not contain line breaks or other control characters."


def provider(text: str) -> str:
    return f"providers: {{acme: {{{text}}}}}"


def acme(text: str) -> str:
    return provider(f"base_url: 'https://a', {text}")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("server: {listen_addr: '8080'}", f"server.listen_addr: {ADDRESS}"),
        ("server: {listen_addr: ':80800'}", f"server.listen_addr: {ADDRESS}"),
        ("server: {listen_addr: '::1:8080'}", f"server.listen_addr: {ADDRESS}"),
        ("server: {grpc_addr: 'http://a:1'}", f"server.grpc_addr: {ADDRESS}"),
        ("server: {metrics_addr: nowhere}", f"server.metrics_addr: {ADDRESS}"),
        ("server: {listen_addr: 8080}", "server.listen_addr: must be a valid string."),
        ("server: {cors_origins: ['https://a.example/']}", f"server.cors_origins[0]: {ORIGIN}"),
        ("server: {cors_origins: ['*', 'A.example']}", f"server.cors_origins[1]: {ORIGIN}"),
        ("server: {cors_origins: '*'}", "server.cors_origins: must be a list."),
        ("server: {drain_seconds: -1}", "server.drain_seconds: must be greater than or equal to 0."),
        ("server: {drain_seconds: .inf}", "server.drain_seconds: must be a finite number."),
        ("server: {log_level: loud}", "server.log_level: must be 'debug', 'info', 'warning' or 'error'."),
        ("server: {tls: {cert: a.pem}}", "server.tls.key: is missing."),
        ("server: {tls: {cert: ../a.pem, key: b.pem}}", "server.tls.cert: must not contain '..'."),
        ('server: {user_agent: "a\\r\\nb"}', "server.user_agent: string should match pattern '^[\\x20-\\x7e]+$'."),
        ("server: 3", "server: must be a mapping."),
        (provider("base_url: ftp://a"), f"providers.acme.base_url: {URL}"),
        (provider("base_url: a.example/v1"), f"providers.acme.base_url: {URL}"),
        (provider("base_url: 'https://a:99999'"), "providers.acme.base_url: is not a URL (Port out of range 0-65535)."),
        (provider("base_url: 'https://user:secret@a'"), f"providers.acme.base_url: {IN_URL}"),
        (provider('base_url: "https://a\\nb"'), f"providers.acme.base_url: {BLANKS}"),
        (provider("url: 'https://a/#b'"), f"providers.acme.url: {BLANKS}"),
        (provider("url: 'https://a', base_url: 'https://a'"), "providers.acme: give url or base_url, not both."),
        (acme("api_key: a, accounts: [{id: a, credential: a}]"), "providers.acme: give api_key or accounts, not both."),
        (acme("accounts: [{id: a, credential: a}, {id: a, credential: b}]"), "providers.acme: two accounts have the same id."),
        (
            acme("billing: {model: free, quota: {source: api, remaining: a}}"),
            "providers.acme.billing.quota: the source 'api' needs a url.",
        ),
        (
            acme("billing: {model: free, quota: {source: headers}}"),
            "providers.acme.billing.quota: say where it tells what is left: give remaining.",
        ),
        (
            acme("billing: {model: free, quota: {source: headers, extraction: regex, remaining: a}}"),
            "providers.acme.billing.quota: the source 'headers' has nothing but headers: leave extraction out.",
        ),
        (
            acme("billing: {model: free, quota: {source: api, url: 'https://a', extraction: regex, remaining: '(a)(b)'}}"),
            "providers.acme.billing.quota: remaining must be a regular expression with one group.",
        ),
        (acme("billing: {model: mixed}"), "providers.acme.billing: free_models is for the model 'mixed', which needs it."),
        (
            acme("billing: {model: free, credit_usd: 1}"),
            "providers.acme.billing: credit_usd is for the models 'credit' and 'mixed'.",
        ),
        (
            acme("accounts: [{id: a, credential: 'a b'}]"),
            "providers.acme.accounts[0].credential: must be printable ASCII, without blanks unless it is a cookie.",
        ),
        (
            provider("base_url: 'https://a?version=1'"),
            "providers.acme: a base_url has no query, since /chat/completions is added to it: give the whole address as url.",
        ),
        (acme("api_key: 'a b'"), f"providers.acme.api_key: {PRINTABLE}"),
        (acme("api_key: ''"), f"providers.acme.api_key: {PRINTABLE}"),
        (acme("api_key: '${NOT_SET}'"), "providers.acme.api_key: the environment variable NOT_SET is not set."),
        (acme("headers: {'X A': b}"), "providers.acme.headers.X A: is not the name of an HTTP header."),
        (acme('headers: {A: "b\\r\\nc: d"}'), f"providers.acme.headers.A: {CONTROL}"),
        (acme("headers: {A: '${NOT_SET}'}"), "providers.acme.headers.A: the environment variable NOT_SET is not set."),
        (acme("retryable_status_codes: [99]"), "providers.acme.retryable_status_codes[0]: must be greater than or equal to 100."),
        (acme("retryable_status_codes: [600]"), "providers.acme.retryable_status_codes[0]: must be less than or equal to 599."),
        (acme("timeout_seconds: 0"), "providers.acme.timeout_seconds: must be greater than 0."),
        (acme("timeout_seconds: .nan"), "providers.acme.timeout_seconds: must be a finite number."),
        (acme("models: ['']"), "providers.acme.models[0]: must not be empty."),
        ("providers: {'a b': {base_url: 'https://a'}}", f"providers.a b: {NAME}"),
        (f"agents: {{{'a' * 65}: {{models: [m]}}}}", f"agents.{'a' * 65}: {NAME}"),
        ("agents: {a: {models: []}}", "agents.a.models: must have at least one item."),
        ("agents: {a: {models: [3]}}", "agents.a.models[0]: must be a mapping."),
        ("agents: {a: {}}", "agents.a.models: is missing."),
        ("agents: {a: {models: [{modle: m}]}}", "agents.a.models[0].modle: there is no such key. Did you mean 'model'?"),
        (
            "agents: {a: {models: [{}]}}",
            "agents.a.models[0]: give at least one of provider, model, provider_rgx and model_rgx.",
        ),
        (
            "agents: {a: {models: [{model_rgx: '('}]}}",
            "agents.a.models[0].model_rgx: is not a regular expression (missing ), unterminated subpattern at position 0).",
        ),
        (
            "agents: {a: {models: [m], system_prompt: x, system_prompt_file: y}}",
            "agents.a: give system_prompt or system_prompt_file, not both.",
        ),
        ("context: {truncation_keep_first_pct: 101}", "context.truncation_keep_first_pct: must be less than or equal to 100."),
        (
            "context: {truncation_keep_first_pct: 60, truncation_keep_last_pct: 60}",
            "context: truncation_keep_first_pct and truncation_keep_last_pct must be at most 100 together.",
        ),
        (
            "prefix_cache: {cache_messages_ttl: 1h}",
            "prefix_cache: tools, system and messages follow each other, so a longer ttl must not follow a shorter one.",
        ),
        (
            "prefix_cache: {cache_control_ttl: 1h, cache_tools_ttl: ephemeral}",
            "prefix_cache: tools, system and messages follow each other, so a longer ttl must not follow a shorter one.",
        ),
        ("window: {engine: {provider: a}}", "window.engine.model: is missing."),
        ("window: {trigger_ratio: 1.5}", "window.trigger_ratio: must be less than or equal to 1."),
        ("mcp_servers: {a: {url: 'https://a', command: b}}", "mcp_servers.a: give either url or command."),
        ("mcp_servers: {a: {}}", "mcp_servers.a: give either url or command."),
        ("client_token: [a]", "client_token: must be a valid string."),
        ("api_keys: [{name: a, token: short}]", "api_keys[0].token: must have 16 to 512 characters; `twinspan keygen` makes one."),
        (
            "api_keys: [{name: a, token: 0123456789abcdef, roles: [root]}]",
            "api_keys[0].roles[0]: must be 'admin', 'user' or 'read-only'.",
        ),
        ("1: 2", "[1]: keys should be strings."),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_a_reason(written: Written, document: str, problem: str) -> None:
    written.write(twinspan_yaml=document)
    assert written.problems() == [f"twinspan.yaml: {problem}"]


@pytest.mark.parametrize(
    "document",
    [
        "server: {listen_addr: '[::1]:8080', grpc_addr: 'localhost:0', metrics_addr: ''}",
        "server: {cors_origins: ['*', 'https://a.example', 'http://localhost:3000', 'app://obsidian.md']}",
        provider("url: 'https://a.example/chat?api-version=2024-10-21'"),
        acme('headers: {X-Team: "a\\tb"}'),
        "prefix_cache: {cache_tools_ttl: 1h, cache_system_ttl: 1h}",
        "window: {engine: fast}\nbouncer: {engine: {provider: a, model: b}}",
        "api_keys: [{name: a, token: 0123456789abcdef, roles: [admin, read-only], allowed_endpoints: ['GET /v1/*']}]",
    ],
)
def test_a_right_value_is_taken(written: Written, document: str) -> None:
    written.write(twinspan_yaml=document)
    written.load()


def test_variables_stand_anywhere_in_credentials_and_headers_but_nowhere_else(written: Written) -> None:
    written.write(twinspan_yaml=acme("api_key: 'a-${PART}-${PART}', headers: {X-Org: '${PART}'}, models: ['${PART}']"))
    loaded = written.load({"PART": "b"}).config.providers["acme"]
    assert loaded.api_key is not None
    assert (loaded.api_key.get_secret_value(), loaded.headers, loaded.models) == ("a-b-b", {"X-Org": "b"}, ("${PART}",))


def test_a_variable_that_holds_a_reference_is_taken_as_it_is(written: Written) -> None:
    written.write(twinspan_yaml="client_token: '${A}'")
    token = written.load({"A": "${B}", "B": "c"}).config.client_token
    assert token is not None
    assert token.get_secret_value() == "${B}"


SECRET = "do-not-show-this-to-anybody"


@pytest.mark.parametrize(
    "document",
    [
        f"client_token: [{SECRET}]",
        f"client_token: '{SECRET} {SECRET}'",
        f"api_keys: [{SECRET}]",
        f"api_keys: [{{name: a, token: '{SECRET}é'}}]",
        f"api_keys: [{{name: a, token: {{b: {SECRET}}}}}]",
        f"api_keys: [{{name: a, token: {SECRET}}}, {{name: b, token: {SECRET}}}]",
        f"provider_keys: {SECRET}",
        f"provider_keys: {{openai: [{SECRET}]}}",
        acme(f'api_key: "{SECRET}\\n"'),
        acme(f'headers: {{Authorization: "{SECRET}\\n"}}'),
        acme(f"accounts: [{{id: a, credential: '{SECRET} '}}]"),
        provider(f"base_url: 'https://user:{SECRET}@a'"),
        provider(f"base_url: 'https://user:{SECRET}@a:port'"),
        f'client_token: "{SECRET}\n',
        f"client_token: {SECRET}: {SECRET}",
        f"client_token: !{SECRET[:2]} [",
    ],
)
def test_no_mistake_shows_a_secret(written: Written, document: str) -> None:
    written.write(twinspan_yaml=document)
    assert SECRET not in "".join(written.problems())


def test_a_configuration_does_not_show_its_secrets(written: Written) -> None:
    written.write(twinspan_yaml=f"client_token: {SECRET}\napi_keys: [{{name: a, token: {SECRET}-2}}]\n{acme(f'api_key: {SECRET}')}")
    config = written.load().config
    assert SECRET not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


def test_a_configuration_cannot_be_changed(written: Written) -> None:
    config = written.load().config
    with pytest.raises(ValueError, match="frozen"):
        config.server.drain_seconds = 1


@pytest.mark.parametrize(
    ("text", "expected"), [("", True), ("a-b.c", True), ("[::1%eth0]", True), ("[127.0.0.1]", False), ("[]", False), ("a:1", False)]
)
def test_a_host_is_a_name_or_an_address(text: str, expected: bool) -> None:
    assert is_host(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0", True), ("65535", True), ("65536", False), ("", False), ("+1", False), ("²", False)]
)
def test_a_port_is_a_small_number(text: str, expected: bool) -> None:
    assert is_port(text) is expected
