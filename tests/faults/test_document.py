from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.document import MARKER, with_table

DOCUMENT = Path(__file__).parents[2] / "docs/faults.md"


def test_the_documents_table_is_the_one_that_the_tests_are_driven_by() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert document == with_table(document), "run: python -m tests.faults.document docs/faults.md"


def test_every_fault_has_its_place_in_the_document() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert [fault.name for fault in table.ALL if f"\n| {fault.name} |" not in document] == []


def test_prose_stays_and_an_old_table_goes() -> None:
    assert with_table(f"Prose.\n{MARKER}an old table").startswith(f"Prose.\n{MARKER}\n| what the provider does |")
    with pytest.raises(ValueError, match="has no line"):
        with_table("Prose.")
