"""The locks in `requirements/` are what `pyproject.toml` asks for, hashed, and name no place to fetch from.

This reads files only. That the locks also resolve is shown by installing them, without a resolver, in every fresh clone.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Pin:
    name: str
    version: str
    hashes: int
    direct: bool
    """Whether the lock says that `pyproject.toml` itself asks for it."""


LOCKS = {"runtime": ("dependencies", "local", "postgresql", "workers"), "build": ("build",), "dev": ("dev",)}
"""What of `pyproject.toml` each lock serves."""


def pins(root: Path, lock: str) -> list[Pin]:
    blocks = re.split(r"^(?=[A-Za-z0-9])", (root / f"requirements/{lock}.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = []
    for block in blocks:
        name, version = re.match(r"(\S+)==([^\s;\\]+)", block).groups()  # type: ignore[union-attr]  # a lock without pins must fail here
        found.append(Pin(canonicalize_name(name), version, block.count("--hash=sha256:"), "twinspan (pyproject.toml" in block))
    return found


def asked(root: Path, sections: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    tables = {
        "dependencies": project["project"]["dependencies"],
        **project["project"]["optional-dependencies"],
        **project["dependency-groups"],
    }

    def walk(table: str) -> Iterator[str]:
        for entry in tables[table]:
            if isinstance(entry, str):
                yield entry
            else:
                yield from walk(entry["include-group"])

    return [Requirement(entry) for section in sections for entry in walk(section)]


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_pins_exactly_what_the_project_asks_for(root: Path, lock: str) -> None:
    pinned = pins(root, lock)
    wanted = asked(root, LOCKS[lock])
    versions = {pin.name: pin.version for pin in pinned}
    unmet = [str(ask) for ask in wanted if versions.get(canonicalize_name(ask.name), "0") not in ask.specifier]
    assert unmet == [], "run: make lock"
    assert {pin.name for pin in pinned if pin.direct} == {canonicalize_name(ask.name) for ask in wanted}, "run: make lock"


@pytest.mark.parametrize("lock", [*LOCKS, "local"])
def test_every_pin_has_its_hashes(root: Path, lock: str) -> None:
    assert [pin for pin in pins(root, lock) if not pin.hashes] == []


def test_the_locks_agree_on_every_version(root: Path) -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for pin in pins(root, lock):
            versions.setdefault(pin.name, set()).add(pin.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_no_lock_says_where_packages_come_from(root: Path) -> None:
    named = [
        f"{path.name}: {line.strip()}"
        for path in sorted((root / "requirements").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "://" in line or re.match(r"\s*(-i|-f|--(extra-)?index-url|--find-links)\b", line)
    ]
    assert named == []


def test_the_node_lock_is_hashed_and_does_not_say_where_packages_come_from(root: Path) -> None:
    lock: dict[str, Any] = json.loads((root / "tests/clients/node/package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "resolved" in package or "integrity" not in package] == []
