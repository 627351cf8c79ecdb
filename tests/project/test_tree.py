"""The rules that CONTRIBUTING.md states for the files of the tree."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "bridge",
    "buf.yaml",
    "deploy",
    "docs",
    "examples",
    "gateway",
    "proto",
    "pyproject.toml",
    "requirements",
    "tests",
}

# Directories that belong to one machine: homes, and where build machines keep their clones.
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:root|work|workspace|builds|home/[a-z][\w-]*|Users/\w+)/")


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_the_top_level_holds_only_what_people_expect_there(files: Sequence[Path]) -> None:
    assert {path.parts[0] for path in files} - TOP_LEVEL == set()


def test_no_file_names_a_path_of_one_machine(root: Path, files: Sequence[Path]) -> None:
    here = re.compile(re.escape(f"{root}/"))
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(text_of(root / path).splitlines(), 1)
        if MACHINE_PATH.search(line) or here.search(line)
    ]
    assert found == []


def test_every_module_says_what_it_is(root: Path, modules: Sequence[Path]) -> None:
    """A module of tests may be silent: its tests are sentences already, and it mirrors the file that they are about."""
    spoken = [path for path in modules if not path.name.startswith("test_")]
    silent = [str(path) for path in spoken if not ast.get_docstring(ast.parse((root / path).read_text(encoding="utf-8")))]
    assert silent == []


def test_no_source_file_outgrows_one_concern(root: Path, modules: Sequence[Path]) -> None:
    sizes = {str(path): len((root / path).read_text(encoding="utf-8").splitlines()) for path in modules if path.parts[0] != "tests"}
    assert {name: size for name, size in sizes.items() if size > 500} == {}
