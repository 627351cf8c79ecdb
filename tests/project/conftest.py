"""The tree as these tests see it: every file that is tracked, or would be with the next commit."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def files() -> Sequence[Path]:
    """Every file of the tree relative to its root, sorted; what `.gitignore` names is none of it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git tree, so nothing says which files belong to it")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = set(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"))
    return sorted(Path(name) for name in names if name and (ROOT / name).is_file())


@pytest.fixture(scope="session")
def modules(files: Sequence[Path]) -> Sequence[Path]:
    """Every Python file that a person wrote."""
    return [path for path in files if path.suffix == ".py" and "_pb2" not in path.name]
