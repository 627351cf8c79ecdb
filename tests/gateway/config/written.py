"""Configurations as an operator writes them, and what becomes of them when they are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config.loading import ConfigError, Loaded, load

SECRET_MODE = 0o600


@dataclass(frozen=True)
class Written:
    """A directory with configuration files."""

    root: Path

    def write(self, **files: str | bytes) -> "Written":
        """Writes files; `__` in a name stands for `/`, and the last `_` for the dot before the suffix."""
        for name, content in files.items():
            stem, _, suffix = name.replace("__", "/").rpartition("_")
            self.put(f"{stem}.{suffix}", content)
        return self

    def put(self, name: str, content: str | bytes, mode: int = SECRET_MODE) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def load(self, environment: Mapping[str, str] | None = None, path: str | None = None) -> Loaded:
        """Loads what `--config` names, relative to the directory; without it, what is found there."""
        given = str(self.root / path) if path is not None else None
        return load(given, environment or {}, directory=self.root)

    def problems(self, environment: Mapping[str, str] | None = None, path: str | None = None) -> list[str]:
        """Loads what must not load, and returns what is wrong with it; files are named relative to the directory."""
        with pytest.raises(ConfigError) as raised:
            self.load(environment, path)
        assert all(problem in str(raised.value) for problem in raised.value.problems)
        return [problem.replace(f"{self.root}/", "").replace(str(self.root), ".") for problem in raised.value.problems]
