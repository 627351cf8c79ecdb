"""What holds for all tests: gateways stay away from the files that the user's own gateway keeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_state_of_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives gateways that serve several tests a directory of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("STATE_DIRECTORY", raising=False)
        yield


@pytest.fixture(autouse=True)
def own_state(own_state_of_modules: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a test's own gateways a directory that nothing has used."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
