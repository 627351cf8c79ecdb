"""Documents are read strictly, and none of them can take more time or memory than a document should."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.documents import MAX_BYTES, DocumentError, read_document, read_json, read_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
COMMENTS = st.sampled_from(
    ["", " ", "\n", "// a comment\n", "//\n", "/* a comment */", "/**/", '/* "quoted" // */', '// "quoted" /*\n']
)


@given(VALUES, st.lists(COMMENTS, min_size=1, max_size=8))
def test_comments_change_nothing_wherever_json_lets_blanks_be(value: Any, comments: list[str]) -> None:
    text = json.dumps(value, separators=(" , ", " : "), ensure_ascii=False)
    tokens = _tokens(text)
    commented = "".join(token + comments[number % len(comments)] for number, token in enumerate(tokens))
    assert read_json(commented) == value


def _tokens(text: str) -> list[str]:
    """Cuts JSON at the blanks and brackets outside of strings, after which comments may follow."""
    tokens, start, quoted, escaped = [], 0, False, False
    for position, character in enumerate(text):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in " []{}":
            tokens.append(text[start : position + 1])
            start = position + 1
    return [*tokens, text[start:]]


def test_what_looks_like_a_comment_in_a_string_stays() -> None:
    text = r'{"url": "https://a/*b*/", "quote": "\"//", "slash": "\\"} // "end"'
    assert read_json(text) == {"url": "https://a/*b*/", "quote": '"//', "slash": "\\"}


def test_json_errors_keep_their_place_behind_comments() -> None:
    with pytest.raises(DocumentError, match="line 3, column 7"):
        read_json('/* one\n two */ {\n  "a" 1}')


@pytest.mark.parametrize("text", ["", "  \n", "// nothing\n", "/* nothing */"])
def test_empty_json_holds_nothing(text: str) -> None:
    assert read_json(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/* never closed", "Expecting value"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "too many digits"),
    ],
)
def test_wrong_json_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_json(text)


@given(VALUES)
def test_yaml_is_read_as_it_was_written(value: Any) -> None:
    assert read_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is given twice"),
        ("a: {b: 1, b: 2}", "line 1, column 11: the key 'b' is given twice"),
        ("a: [1", "line 2, column 1"),
        ("a: \0", "is not YAML"),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("? [a]\n: 1", "unhashable key"),
        ("<<: 1", "only mappings can be merged"),
        ("a: &a {<<: *a}", "merges itself"),
        ("!!map [a]", "expected a mapping node"),
    ],
)
def test_wrong_yaml_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_yaml(text)


def test_merged_keys_yield_to_those_that_are_given() -> None:
    assert read_yaml("a: &a {k: 1, l: 1}\nb: &b {l: 2, m: 2}\nc: {<<: [*a, *b], k: 3}") == {
        "a": {"k": 1, "l": 1},
        "b": {"l": 2, "m": 2},
        "c": {"l": 1, "m": 2, "k": 3},
    }


def test_a_mapping_that_merges_another_can_be_merged_itself_from_farther_out() -> None:
    # The outer mapping is built first; what it merges must not look as if its keys were given twice afterwards.
    text = "base: &base {k: 0}\nouter: {inner: &inner {<<: *base, k: 1}}\nuse: {<<: *inner}\n"
    assert read_yaml(text) == {"base": {"k": 0}, "outer": {"inner": {"k": 1}}, "use": {"k": 1}}


DEEP = 100_000
EXPANDING = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
MERGING = (
    "a: &a\n" + "".join(f"  k{n}: 1\n" for n in range(2000)) + "b: {<<: [" + "*a," * 400 + "]}\n"
)  # 2,000 keys, merged 400 times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * DEEP, "nested more than 64 levels deep"),
        ("".join(" " * depth + "a:\n" for depth in range(2000)), "nested more than 64 levels deep"),
        ("a: [" + "x," * 600_000 + "]", "more than 500000 values"),
        (EXPANDING, "once its aliases are written out"),
        ("a: &a [*a]", "once its aliases are written out"),
        (MERGING, "more than 500000 keys are merged"),
    ],
    ids=["brackets", "blocks", "long", "aliases", "itself", "merges"],
)
def test_yaml_that_would_grow_without_bounds_is_refused(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_yaml(text)


def test_merges_of_merges_do_not_multiply() -> None:
    text = "a0: &a0 {k: 1, l: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 40))
    assert read_yaml(text)["a39"] == {"k": 1, "l": 2}


def test_the_suffix_decides_how_a_file_is_read(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonc", "a.yaml", "a.yml"):
        path = tmp_path / name
        path.write_text('// {}\n{"a": 1}' if "json" in name else "# {}\na: 1")
        assert read_document(path) == {"a": 1}, name


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_document(path) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"), [(b"a: \xff", "is not UTF-8 (byte 3)."), (b" " * (MAX_BYTES + 1), "is larger than 4194304 bytes.")]
)
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(DocumentError) as raised:
        read_document(path)
    assert str(raised.value) == message


def test_a_directory_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        read_document(tmp_path)
