import sys
from pathlib import Path

import pytest

from gateway.app import Configuration, validate
from gateway.config.problems import ConfigError
from gateway.config.schema import Config


def test_without_the_client_of_the_database_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = Configuration.of(Config.model_validate({"keys": {"url": "postgresql://db.example/keys"}}))
    validate(configuration)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError, match=r"pip install 'twinspan\[postgresql\]'"):
        validate(configuration)


def test_a_gateway_without_such_a_database_needs_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    validate(Configuration.of(Config()))
