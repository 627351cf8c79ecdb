"""What must fit together in a configuration whose parts are right by themselves."""

from collections.abc import Iterator

from gateway.config.problems import Place, nearest
from gateway.config.schema import Config, SelectorConfig
from gateway.config.vendors import VENDORS

LOCAL = "local"
"""The provider that is there without being configured: the embedded model."""

CLIENT_TOKEN = "client_token"  # noqa: S105 (a name, not a token)
"""The name of the administrator's credential, which no key can have."""


def cross_check(config: Config) -> list[tuple[Place, str]]:
    """Returns the place of each mistake, and what is wrong there."""
    return [*_providers(config), *_agents(config), *_keys(config), *_backends(config)]


def _providers(config: Config) -> Iterator[tuple[Place, str]]:
    for name, provider in config.providers.items():
        if name == LOCAL:
            continue
        place = ("providers", name)
        vendor = VENDORS.get(name)
        if provider.url is None and provider.base_url is None and (vendor is None or vendor.base_url is None):
            hint = nearest(name, list(VENDORS)) if vendor is None else ""
            yield place, f"nothing says where it is: give its base_url.{hint}"
        own_address = provider.url is not None or provider.base_url is not None
        if vendor and vendor.key_variable and provider.api_key is None and not own_address and provider.auth_style != "none":
            yield (
                place,
                (f"has no credential: give api_key, put it into provider_keys of a secrets file, or set {vendor.key_variable}."),
            )
    for name in config.provider_keys:
        if name not in config.providers:
            yield ("provider_keys", name), f"there is no such provider.{nearest(name, [*config.providers, *VENDORS])}"


def _agents(config: Config) -> Iterator[tuple[Place, str]]:
    known = [*config.providers, LOCAL]
    for name, agent in config.agents.items():
        for number, entry in enumerate(agent.models):
            if isinstance(entry, SelectorConfig) and entry.provider is not None and entry.provider not in known:
                place = ("agents", name, "models", number, "provider")
                yield place, f"there is no provider '{entry.provider}'.{nearest(entry.provider, known)}"
        if agent.shadow is not None and (provider := agent.shadow.partition("/")[0]) not in known:
            yield ("agents", name, "shadow"), f"there is no provider '{provider}'.{nearest(provider, known)}"


def _keys(config: Config) -> Iterator[tuple[Place, str]]:
    names: dict[str, int] = {}
    tokens = {config.client_token.get_secret_value()} if config.client_token else set()
    for number, key in enumerate(config.api_keys):
        if key.name in names:
            yield ("api_keys", number, "name"), f"'{key.name}' is the name of api_keys[{names[key.name]}] too."
        if key.name == CLIENT_TOKEN:
            yield (
                ("api_keys", number, "name"),
                f"'{CLIENT_TOKEN}' is the name under which the administrator's credential owns files.",
            )
        names.setdefault(key.name, number)
        token = key.token.get_secret_value()
        if token in tokens:
            yield ("api_keys", number, "token"), "is the same as another key's."
        tokens.add(token)


def _backends(config: Config) -> Iterator[tuple[Place, str]]:
    known = [*config.providers, LOCAL]
    for section, backend in (("files", config.files.backend), ("batches", config.batches.backend)):
        if backend not in known:
            yield (section, "backend"), f"there is no provider '{backend}'.{nearest(backend, known)}"
    if config.files.backend != config.batches.backend:
        yield (
            ("batches", "backend"),
            f"is '{config.batches.backend}', but the files are with '{config.files.backend}': batches run where their files are.",
        )
