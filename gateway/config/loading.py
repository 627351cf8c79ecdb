"""Loads a configuration: finds its files, merges them, and reports every mistake at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from gateway.config.checks import cross_check
from gateway.config.documents import DocumentError, read_document
from gateway.config.problems import ConfigError, Place, describe, path
from gateway.config.schema import SECRET_KEYS, Config, ProviderConfig, SelectorConfig, unserved_keys
from gateway.config.secrets import Secrets, is_readable_by_others, read_secrets
from gateway.config.section import Origin, is_credential, is_host, is_port
from gateway.config.vendors import VENDORS

__all__ = ["ConfigError", "Loaded", "load"]

_MERGED_BY_KEY = frozenset({"providers", "agents", "mcp_servers", "teams"})
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonc")
_DEFAULT_FILE = "twinspan.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without mistakes.

    Attributes:
        config: The configuration. Each provider has its credential in it.
        sources: The files it came from, secrets among them; none means defaults.
        warnings: What an operator should know of, a sentence each.
        system_prompts: The instructions of agents, by agent, whether they came from the configuration or a file of their own.
    """

    config: Config
    sources: tuple[Path, ...]
    warnings: tuple[str, ...]
    system_prompts: Mapping[str, str]


@dataclass(slots=True)
class _Files:
    """The files of a configuration, put together."""

    root: Path
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, Path] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(given: str | None, environment: Mapping[str, str], *, directory: Path | None = None) -> Loaded:
    """Loads a configuration.

    Args:
        given: The file or directory; None to look where the environment says, and then for `twinspan.yaml`.
        environment: The variables of the environment.
        directory: Where `twinspan.yaml` is looked for; the current directory if None.

    Raises:
        ConfigError: It has mistakes; the error holds all of them.
    """
    try:
        files = _find(given, environment, directory or Path.cwd())
        secrets = read_secrets(environment)
    except OSError as error:
        raise ConfigError([f"{error.filename}: cannot be read: {error.strerror}."]) from error
    files.problems += secrets.problems
    _add_secrets(files, secrets)
    _override_address(files, environment)
    config = _validated(files, Origin(files.root, environment))
    prompts = _system_prompts(config, files)
    if files.problems:
        raise ConfigError(files.problems)
    return Loaded(config, tuple(files.sources), (*files.warnings, *secrets.warnings, *_warnings(config)), prompts)


def _find(given: str | None, environment: Mapping[str, str], directory: Path) -> _Files:
    """Reads the first configuration there is."""
    chosen = given or environment.get("TWINSPAN_CONFIG_FILE") or None
    if chosen is None and (of_directory := environment.get("TWINSPAN_CONFIG_DIR")):
        return _read_directory(Path(of_directory))
    if chosen is None:
        found = directory / _DEFAULT_FILE
        return _read([found], directory) if found.is_file() else _Files(directory)
    where = Path(chosen)
    if where.is_dir():
        return _read_directory(where)
    if not where.exists():
        raise ConfigError([f"{where}: there is no such file. Check --config and TWINSPAN_CONFIG_FILE."])
    return _read([where], where.parent)


def _read_directory(root: Path) -> _Files:
    if not root.is_dir():
        raise ConfigError([f"{root}: there is no such directory. Check TWINSPAN_CONFIG_DIR."])
    parts = sorted(part for part in root.glob("config.d/*") if part.suffix in _SUFFIXES and not part.name.startswith("."))
    if not parts:
        parts = [root / f"config{suffix}" for suffix in _SUFFIXES if (root / f"config{suffix}").is_file()][:1]
    if not parts:
        raise ConfigError([f"{root}: has neither config.d/*.yaml or *.json nor config.yaml or config.json."])
    return _read(parts, root)


def _read(parts: list[Path], root: Path) -> _Files:
    """Reads files in order: of maps the keys are put together, of other sections the last one counts."""
    files = _Files(root.absolute())
    for part in parts:
        files.sources.append(part)
        try:
            content = read_document(part)
        except DocumentError as error:
            files.problems.append(f"{part}: {error}")
            continue
        if content is None:
            continue
        if not isinstance(content, dict):
            files.problems.append(f"{part}: must be a mapping of sections.")
            continue
        if any(key in content for key in SECRET_KEYS) and is_readable_by_others(part):
            files.warnings.append(f"{part} holds secrets and can be read by others: chmod 600 {part}")
        for section, value in content.items():
            # A section that is named and left empty is a section with its defaults.
            given: Any = {} if value is None and section in Config.model_fields and section not in SECRET_KEYS else value
            if given is None and section in SECRET_KEYS:
                continue
            if section not in _MERGED_BY_KEY:
                files.tree[section] = given
            elif isinstance(given, dict):
                files.tree.setdefault(section, {}).update({name: {} if item is None else item for name, item in given.items()})
                files.origins |= {(section, name): part for name in given}
            else:
                files.problems.append(f"{part}: {section}: must be a mapping.")
            files.origins[section,] = part
    return files


def _add_secrets(files: _Files, secrets: Secrets) -> None:
    files.sources += secrets.sources
    for key, value in secrets.values.items():
        present = files.tree.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            files.tree[key] = {**present, **value}
        elif isinstance(present, list) and isinstance(value, list):
            files.tree[key] = [*value, *present]
        else:
            files.tree[key] = value
    files.origins |= secrets.origins


def _override_address(files: _Files, environment: Mapping[str, str]) -> None:
    """Puts in what the environment says of where to listen: HOST and PORT for REST, GRPC_PORT for gRPC."""
    _override(files, "listen_addr", ":8080", {name: environment.get(name) for name in ("HOST", "PORT")})
    _override(files, "grpc_addr", ":50051", {"GRPC_PORT": environment.get("GRPC_PORT")})


def _override(files: _Files, key: str, default: str, variables: Mapping[str, str | None]) -> None:
    given = {name: value for name, value in variables.items() if value}
    server = files.tree.get("server", {})
    configured = server.get(key, default) if isinstance(server, dict) else None
    if not given or not isinstance(configured, str):
        return
    host, _, port = configured.rpartition(":")
    problems: list[str] = []
    for name, value in given.items():
        if name == "HOST":
            host = f"[{value}]" if ":" in value and not value.startswith("[") else value
            if not is_host(host):
                problems.append(f"HOST: '{value}' is not a host to listen on. Give a name or an IP address, without a port.")
        else:
            port = value
            if not is_port(port):
                problems.append(f"{name}: '{value}' is not a port. Give a number of 0 to 65535.")
    files.problems += problems
    if not problems:
        files.tree["server"] = {**server, key: f"{host}:{port}"}


def _validated(files: _Files, origin: Origin) -> Config:
    """Returns the configuration, checked. With mistakes, which are noted in `files`, it is what is left without them.

    Raises:
        ConfigError: The mistakes are such that the rest cannot be checked.
    """
    described: list[tuple[Place, str]] = []
    try:
        config = Config.model_validate(files.tree, context=origin)
    except ValidationError as error:
        described = describe(error, Config)
        files.problems += [f"{_place(files, place)}: {message}" for place, message in described]
        try:
            config = Config.model_validate(_without(files.tree, [place for place, _ in described]), context=origin)
        except ValidationError:
            raise ConfigError(files.problems) from None
    config = _with_credentials(config, files, origin.environment)
    wrong = {place[:2] for place, _ in described}
    sections = {place[0] for place in wrong}
    for place, message in cross_check(config):
        known = place[:2] in wrong or (place[0] in sections and place[0] not in _MERGED_BY_KEY)
        # Without the keys that are wrong, providers look as if they had none.
        if not known and not (place[0] == "providers" and "provider_keys" in sections):
            files.problems.append(f"{_place(files, place)}: {message}")
    return config


def _without(tree: Mapping[str, Any], wrong: Sequence[Place]) -> dict[str, Any]:
    """Returns a configuration without what is wrong in it. Providers and teams stay by name, since others may refer to them."""
    rest = {section: value for section, value in tree.items() if isinstance(section, str)}
    for section in _MERGED_BY_KEY & rest.keys():
        rest[section] = dict(rest[section])
    for place in wrong:
        section = str(place[0])
        if section not in _MERGED_BY_KEY or len(place) == 1:
            rest.pop(section, None)
        elif section in {"providers", "teams"}:
            rest[section][place[1]] = {}
        else:
            rest[section].pop(place[1], None)
    return rest


def _with_credentials(config: Config, files: _Files, environment: Mapping[str, str]) -> Config:
    """Puts each provider's credential in. A built-in provider that an agent or a secret names is configured by its key alone."""
    providers = dict(config.providers)
    selected = [entry.provider for agent in config.agents.values() for entry in agent.models if isinstance(entry, SelectorConfig)]
    for name in (*config.provider_keys, *selected):
        if name in VENDORS and name is not None and (name in config.provider_keys or _customary(name, environment)):
            providers.setdefault(name, ProviderConfig())
    for name, provider in providers.items():
        if provider.api_key is not None or provider.accounts:
            continue
        if (credential := _credential(name, config, environment)) is not None:
            if not is_credential(credential.get_secret_value()):
                files.problems.append(f"{VENDORS[name].key_variable}: must be printable ASCII without blanks.")
            providers[name] = provider.model_copy(update={"api_key": credential})
    return config.model_copy(update={"providers": providers})


def _credential(name: str, config: Config, environment: Mapping[str, str]) -> SecretStr | None:
    if name in config.provider_keys:
        return config.provider_keys[name]
    return _customary(name, environment)


def _customary(name: str, environment: Mapping[str, str]) -> SecretStr | None:
    """Returns the credential in the variable in which that of a built-in provider is customarily held."""
    vendor = VENDORS.get(name)
    value = environment.get(vendor.key_variable, "").strip() if vendor and vendor.key_variable else ""
    return SecretStr(value) if value else None


def _system_prompts(config: Config, files: _Files) -> dict[str, str]:
    prompts = {}
    for name, agent in config.agents.items():
        prompts[name] = agent.system_prompt
        if agent.system_prompt_file is not None:
            try:
                prompts[name] = agent.system_prompt_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                place = _place(files, ("agents", name, "system_prompt_file"))
                files.problems.append(f"{place}: {agent.system_prompt_file} cannot be read: {reason}.")
    return prompts


def _warnings(config: Config) -> list[str]:
    unserved = unserved_keys(config)
    if not unserved:
        return []
    return [f"This version understands these keys but does not act on them: {', '.join(unserved)}."]


def _place(files: _Files, place: Place) -> str:
    """Returns the file and the path of a mistake."""
    for length in range(len(place), 0, -1):
        if place[:length] in files.origins:
            return f"{files.origins[place[:length]]}: {path(place)}"
    return path(place)
