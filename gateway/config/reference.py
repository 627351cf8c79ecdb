"""Writes the tables of `docs/configuration.md` from the schema, so that the two cannot say different things.

`python -m gateway.config.reference docs/configuration.md` puts them in place of those that the document has. Nothing that serves
uses this.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.config.schema import json_schema
from gateway.config.section import NOT_YET
from gateway.config.vendors import VENDORS

MARKER: Final = "<!-- From here on, the document is written by: python -m gateway.config.reference docs/configuration.md -->\n"
"""Stands before the tables, at the end of a document's prose."""

_REFERENCE = "#/$defs/"
_NOT_YET = " Not acted on yet."


def with_tables(document: str) -> str:
    """Returns a document with the tables after its prose, in place of those it had.

    Raises:
        ValueError: It has no marker that says where its prose ends.
    """
    prose, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError(f"The document has no line {MARKER.strip()!r}, after which the tables go.")
    return prose + marker + tables()


def tables() -> str:
    """Returns a table of each section, a row a key, and one of the built-in providers, as Markdown."""
    schema = json_schema()
    return "\n".join((*_section(schema, schema["$defs"], "", not_yet=False), *_vendors()))


def _section(section: Mapping[str, Any], definitions: Mapping[str, Any], path: str, *, not_yet: bool) -> Iterator[str]:
    """Gives the lines of a section, and then those of each section in it."""
    yield f"\n### `{path}`\n" if path else "\n### Sections\n"
    yield f"{section['description']}{_NOT_YET if not_yet else ''}\n"
    yield "| key | values | default | meaning |\n| --- | --- | --- | --- |"
    inner: list[str] = []
    for name, key in section["properties"].items():
        nested = _nested(key)
        later = bool(key.get(NOT_YET))
        # A key whose meaning is that of its section has none of its own in the schema.
        meaning = key.get("description") or definitions[nested[0]]["description"] if nested else key["description"]
        default = "required" if name in section.get("required", ()) else _default(key)
        yield f"| `{name}` | {_values(key)} | {default} | {meaning}{_NOT_YET if later and not not_yet else ''} |"
        if nested:
            inner_path = f"{path}.{name}{nested[1]}".removeprefix(".")
            inner += _section(definitions[nested[0]], definitions, inner_path, not_yet=later or not_yet)
    yield from inner


def _nested(key: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the section that a key holds, and what the path to it has beyond the key's name."""
    if "$ref" in key:
        return key["$ref"].removeprefix(_REFERENCE), ""
    for alternative in (*key.get("anyOf", ()), *key.get("oneOf", ())):
        if (found := _nested(alternative)) is not None:
            return found
    if (held := _held(key)) and (found := _nested(held)) is not None:
        return found[0], f".NAME{found[1]}"
    if "items" in key and (found := _nested(key["items"])) is not None:
        return found[0], f"[]{found[1]}"
    return None


def _held(key: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the schema of what a mapping of names holds; empty if it may be anything, or if it is no such mapping."""
    held = next(iter(key.get("patternProperties", {}).values()), key.get("additionalProperties"))
    return held if isinstance(held, dict) else {}


def _values(key: Mapping[str, Any]) -> str:
    """Says what a key may hold."""
    alternatives = [item for item in (*key.get("anyOf", ()), *key.get("oneOf", ())) if item.get("type") != "null"]
    if alternatives:
        return " or ".join(_values(item) for item in alternatives)
    if "$ref" in key:
        return "a section"
    if "enum" in key:
        return ", ".join(f"`{json.dumps(value) if value == '' else value}`" for value in key["enum"])
    if "const" in key:
        return f"`{key['const']}`"
    match key.get("type"):
        case "array":
            return f"list: {_values(key['items'])}" if key.get("items") else "list"
        case "object":
            held = _held(key)
            return f"mapping: name to {_values(held)}" if held else "mapping"
        case "string" if key.get("writeOnly"):
            return "secret"
        case "string" if key.get("format") in {"path", "date-time"}:
            return "path" if key["format"] == "path" else "date and time"
        case "boolean":
            return "`true`, `false`"
        case None:
            return "any"
        case kind:
            return f"{kind}{_range(key)}"


def _range(key: Mapping[str, Any]) -> str:
    bounds = (("exclusiveMinimum", "above"), ("minimum", "at least"), ("maximum", "at most"))
    return "".join(f", {word} {key[name]:,.12g}" for name, word in bounds if name in key)


def _default(key: Mapping[str, Any]) -> str:
    value = key.get("default")
    if value in (None, [], {}, ""):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _vendors() -> Iterator[str]:
    yield "\n## Built-in providers\n"
    yield "| name | base_url | variable of its credential | auth_style | capabilities |\n| --- | --- | --- | --- | --- |"
    for vendor in VENDORS.values():
        address = f"`{vendor.base_url}`" if vendor.base_url else "none: give your own"
        variable = f"`{vendor.key_variable}`" if vendor.key_variable else "none needed"
        yield f"| `{vendor.name}` | {address} | {variable} | `{vendor.auth_style}` | {', '.join(sorted(vendor.capabilities))} |"
    yield ""


if __name__ == "__main__":
    _document = Path(sys.argv[1])
    _document.write_text(with_tables(_document.read_text("utf-8")), "utf-8")
