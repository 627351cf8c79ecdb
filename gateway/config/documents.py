"""Reads YAML, and JSON with comments, strictly: a key that is given twice is a mistake, and no document can grow without bounds.

Nothing is known here of what the keys mean.
"""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 4 * 1024 * 1024
"""Largest file that is read."""

_MAX_NODES = 500_000
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


class DocumentError(Exception):
    """A file that is not a readable document; the message says where and why."""


def read_document(path: Path) -> Any:
    """Returns what a file holds: None if it is empty.

    Args:
        path: The file; `.json` and `.jsonc` are read as JSON with `//` and `/* */` comments, all others as YAML.

    Raises:
        DocumentError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise DocumentError(f"is larger than {MAX_BYTES} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8 (byte {error.start}).") from error
    return read_json(text) if path.suffix in {".json", ".jsonc"} else read_yaml(text)


def read_json(text: str) -> Any:
    """Returns what a JSON text with comments holds.

    Raises:
        DocumentError: It is no such text, or gives a key twice.
    """
    bare = _COMMENT.sub(_without_comment, text)
    if not bare.strip():
        return None
    try:
        return json.loads(bare, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except RecursionError:
        raise DocumentError("is nested too deeply.") from None


def read_yaml(text: str) -> Any:
    """Returns what a YAML text holds.

    Raises:
        DocumentError: It is no such text, gives a key twice, or grows too large by its aliases.
    """
    try:
        loaded = yaml.load(text, _StrictLoader)  # noqa: S506 (a safe loader, made stricter)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentError(f"{place}{error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"is not YAML: {error}.") from error
    except RecursionError:
        raise DocumentError("is nested too deeply.") from None
    if _size(loaded, {}) > _MAX_NODES:
        raise DocumentError(f"has more than {_MAX_NODES} values once its aliases are written out.")
    return loaded


class _StrictLoader(yaml.CSafeLoader):
    """A safe loader that does not let a key be given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{name}' is given twice", problem_mark=key.start_mark)
            seen[name] = key
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"the key '{twice}' is given twice.")
    return result


def _without_comment(match: "re.Match[str]") -> str:
    token = match[0]
    return token if token.startswith('"') else re.sub(r"[^\n]", " ", token)


def _size(value: Any, known: dict[int, int]) -> int:
    """Returns how many values there are once each alias is written out. A mapping that holds itself is infinitely large."""
    if not isinstance(value, dict | list):
        return 1
    size = known.get(id(value))
    if size is None:
        known[id(value)] = _MAX_NODES + 1  # what is met again before it is known holds itself
        children = value.values() if isinstance(value, dict) else value
        size = known[id(value)] = 1 + sum(_size(child, known) for child in children)
    return size
