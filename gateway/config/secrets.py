"""Finds the files that hold credentials, and reads them.

The first of these that exists is used: `$CREDENTIALS_DIRECTORY/secrets`, `$CREDENTIALS_DIRECTORY/secrets.d/*.json`,
`$TWINSPAN_SECRETS_DIR/*.json`, `/run/secrets/twinspan/*.json`.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.documents import DocumentError, read_document
from gateway.config.problems import nearest
from gateway.config.schema import SECRET_KEYS

_SYSTEM_DIRECTORY = Path("/run/secrets/twinspan")


@dataclass(slots=True)
class Secrets:
    """What the secrets files hold.

    Attributes:
        values: Their contents, merged.
        origins: The file of each value, by its path's first steps.
        sources: The files.
        problems: What is wrong with them.
        warnings: What is not as it should be.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str | int, ...], Path] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_secrets(environment: Mapping[str, str], system_directory: Path = _SYSTEM_DIRECTORY) -> Secrets:
    """Returns what the secrets files hold; of one value in several files the last, in alphabetical order, counts."""
    secrets = Secrets()
    for path in _files(environment, system_directory):
        _add(path, secrets)
    return secrets


def is_readable_by_others(path: Path) -> bool:
    """Tells whether others than a file's owner and its group may read it, or its group may change it."""
    return bool(path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP))


def _files(environment: Mapping[str, str], system_directory: Path) -> list[Path]:
    credentials = environment.get("CREDENTIALS_DIRECTORY")
    if credentials:
        single = Path(credentials, "secrets")
        if single.is_file():
            return [single]
        if found := _json_files(Path(credentials, "secrets.d")):
            return found
    own = environment.get("TWINSPAN_SECRETS_DIR")
    if own and (found := _json_files(Path(own))):
        return found
    return _json_files(system_directory)


def _json_files(directory: Path) -> list[Path]:
    """Returns the JSON files of a directory in alphabetical order, without hidden ones, such as those that editors leave."""
    return sorted(path for path in directory.glob("*.json") if not path.name.startswith("."))


def _add(path: Path, secrets: Secrets) -> None:
    secrets.sources.append(path)
    try:
        content = read_document(path, as_json=True)
    except DocumentError as error:
        secrets.problems.append(f"{path}: {error}")
        return
    if content is None:
        return
    if not isinstance(content, dict):
        secrets.problems.append(f"{path}: must be a mapping with {', '.join(SECRET_KEYS)}.")
        return
    if is_readable_by_others(path):
        secrets.warnings.append(f"{path} can be read by others: chmod 600 {path}")
    for key, value in content.items():
        if key not in SECRET_KEYS:
            secrets.problems.append(f"{path}: {key}: there is no such secret.{nearest(key, SECRET_KEYS)}")
        elif value is None:
            continue  # a key that is left empty is a key that is not given
        elif key == "provider_keys" and isinstance(value, dict):
            secrets.values.setdefault(key, {}).update(value)
            secrets.origins |= {(key, name): path for name in value}
        elif key == "api_keys" and isinstance(value, list):
            known = secrets.values.setdefault(key, [])
            secrets.origins |= {(key, len(known) + number): path for number in range(len(value))}
            known.extend(value)
        else:
            secrets.values[key] = value
            secrets.origins[key,] = path
