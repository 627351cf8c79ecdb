"""Reads YAML, and JSON with comments, strictly: a key that is given twice is a mistake, and no document can grow without bounds.

Nothing is known here of what the keys mean.
"""

import json
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

MAX_BYTES = 4 * 1024 * 1024
"""Largest file that is read."""

_MAX_NODES = 500_000
_MAX_DEPTH = 64
_MERGE_TAG = "tag:yaml.org,2002:merge"
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


_Pair: TypeAlias = tuple[yaml.Node, yaml.Node]


class DocumentError(Exception):
    """A file that is not a readable document; the message says where and why."""


def read_document(path: Path, *, as_json: bool = False) -> Any:
    """Returns what a file holds: None if it is empty.

    Args:
        path: The file; `.json` and `.jsonc` are read as JSON with `//` and `/* */` comments, all others as YAML.
        as_json: Whether it is JSON whatever its name.

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
    return read_json(text) if as_json or path.suffix in {".json", ".jsonc"} else read_yaml(text)


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
    except ValueError:
        raise DocumentError("holds a number with too many digits.") from None
    except RecursionError:
        raise DocumentError("is nested too deeply.") from None


def read_yaml(text: str) -> Any:
    """Returns what a YAML text holds.

    Raises:
        DocumentError: It is no such text, gives a key twice, or grows too large by its aliases.
    """
    try:
        _check_bounds(text)
        loaded = yaml.load(text, _StrictLoader)  # noqa: S506 (a safe loader, made stricter)
        size = _size(loaded, {})
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"{_place(error.problem_mark)}{what}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError:
        raise DocumentError("is nested too deeply.") from None
    if size > _MAX_NODES:
        raise DocumentError(f"has more than {_MAX_NODES} values once its aliases are written out.")
    return loaded


class _StrictLoader(yaml.CSafeLoader):
    """A safe loader that does not let a key be given twice, and puts merged mappings (`<<`) in without changing their nodes.

    The loader it stands on writes merged keys into the node, where they look like keys given twice if the node is read again, and
    they multiply without bounds where merged mappings merge others.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._flat: dict[int, list[_Pair] | None] = {}
        self._merged = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            node = yaml.MappingNode(node.tag, self._pairs(node), node.start_mark, node.end_mark)
        return super().construct_mapping(node, deep)

    def _pairs(self, node: yaml.MappingNode) -> list[_Pair]:
        """Returns the keys and values of a mapping: first those that it merges and does not give itself, then its own."""
        if id(node) in self._flat:
            known = self._flat[id(node)]
            if known is None:
                raise yaml.MarkedYAMLError(problem="a mapping merges itself", problem_mark=node.start_mark)
            return known
        self._flat[id(node)] = None
        merged: dict[Hashable, _Pair] = {}
        own: dict[Hashable, _Pair] = {}
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                for pair in self._inherited(value):
                    merged.setdefault(_key(pair[0]), pair)
            elif _key(key) in own:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
            else:
                own[_key(key)] = (key, value)
        pairs = self._flat[id(node)] = list((merged | own).values())
        return pairs

    def _inherited(self, merged: yaml.Node) -> Iterator[_Pair]:
        """Gives what a mapping gets from those that it merges; of one key the first counts."""
        for source in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            if not isinstance(source, yaml.MappingNode):
                raise yaml.MarkedYAMLError(problem="only mappings can be merged", problem_mark=merged.start_mark)
            pairs = self._pairs(source)
            self._merged += len(pairs)
            if self._merged > _MAX_NODES:
                raise yaml.MarkedYAMLError(problem=f"more than {_MAX_NODES} keys are merged", problem_mark=merged.start_mark)
            yield from pairs


def _key(node: yaml.Node) -> Hashable:
    return node.value if isinstance(node, yaml.ScalarNode) else id(node)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _check_bounds(text: str) -> None:
    """Refuses what is too large or too deep before anything is built.

    What builds recurses in C, where too much depth ends the process, so it cannot be left to fail by itself.
    """
    depth = nodes = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise DocumentError(f"{_place(event.start_mark)}is nested more than {_MAX_DEPTH} levels deep.")
        if nodes > _MAX_NODES:
            raise DocumentError(f"has more than {_MAX_NODES} values.")


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
