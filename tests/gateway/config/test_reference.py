"""The documentation's tables say what the schema says, and its example works."""

from pathlib import Path

import pytest

from gateway.config.reference import MARKER, tables, with_tables
from gateway.config.schema import Config
from gateway.config.vendors import VENDORS
from tests.gateway.config.written import Written

ROOT = Path(__file__).parents[3]


def test_the_documents_tables_are_those_of_the_schema() -> None:
    document = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert document == with_tables(document), "run: python -m gateway.config.reference docs/configuration.md"


def test_every_section_and_every_built_in_provider_has_its_place() -> None:
    text = tables()
    assert [name for name in Config.model_fields if f"\n| `{name}` |" not in text] == []
    assert [name for name in VENDORS if f"\n| `{name}` |" not in text] == []
    for path in ("server.tls", "providers.NAME.accounts[]", "agents.NAME.models[]", "mcp_servers.NAME", "api_keys[]"):
        assert f"\n### `{path}`\n" in text


def test_a_row_tells_a_keys_values_default_and_meaning() -> None:
    assert "\n| `auto_load` | `true`, `false` | `true` | Whether it starts with the gateway. Not acted on yet. |\n" in tables()
    assert "\n| `token` | secret | required | The credential, 16 to 512 characters. |\n" in tables()


def test_prose_stays_and_old_tables_go() -> None:
    assert with_tables(f"Prose.\n{MARKER}old tables") == f"Prose.\n{MARKER}{tables()}"
    with pytest.raises(ValueError, match="has no line"):
        with_tables("Prose.")


def test_the_example_loads_without_a_warning(written: Written) -> None:
    written.write(twinspan_yaml=(ROOT / "examples/twinspan.yaml").read_text("utf-8"))
    loaded = written.load({"OPENAI_API_KEY": "openai-key", "ACME_API_KEY": "acme-key"})
    assert loaded.warnings == ()
    assert loaded.config.providers
    assert loaded.config.agents
