"""Writes the table of `docs/faults.md` from the one that the tests are driven by, so that the two cannot say different things.

`python -m tests.faults.document docs/faults.md` puts it in place of the one that the document has.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults import table
from tests.faults.table import Fault, View

MARKER: Final = "<!-- From here on, the document is written by: python -m tests.faults.document docs/faults.md -->\n"
"""Stands before the table, at the end of the document's prose."""

_HEAD = (
    "| what the provider does | asked for | the client of one model gets | the client of an agent gets | asked again | breaker |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def with_table(document: str) -> str:
    """Returns a document with the table after its prose, in place of the one it had.

    Raises:
        ValueError: It has no marker that says where its prose ends.
    """
    prose, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError(f"The document has no line {MARKER.strip()!r}, after which the table goes.")
    return prose + marker + "\n" + "\n".join([_HEAD, *(row for fault in table.ALL for row in _rows(fault))]) + "\n"


def _rows(fault: Fault) -> Iterator[str]:
    if fault.whole == fault.streamed:
        yield _row(fault.name, "either", fault.streamed)
        return
    yield _row(fault.name, "stream", fault.streamed)
    if fault.whole is not None:
        yield _row(fault.name, "whole", fault.whole)


def _row(name: str, form: str, view: View) -> str:
    return f"| {name} | {form} | {_of_one_model(view)} | {_of_an_agent(view)} | {_asked_again(view)} | {_breaker(view)} |"


def _of_one_model(view: View) -> str:
    if view.kind is None:
        return "the answer"
    if view.begun:
        return f"the answer's beginning, then `{view.kind}`"
    return f"{view.status} `{view.kind}`"


def _of_an_agent(view: View) -> str:
    if view.kind is None:
        return "the answer"
    return "the same" if view.begun else "the next target's answer"


def _asked_again(view: View) -> str:
    if view.kind is None:
        return ""
    return "yes" if view.retried and not view.begun else "no"


def _breaker(view: View) -> str:
    if view.kind is None:
        return ""
    if view.held:
        return "opens it, for as long as it asks" if view.retry_after else "opens it"
    return "counts" if view.blamed else "does not count"


if __name__ == "__main__":
    _document = Path(sys.argv[1])
    _document.write_text(with_table(_document.read_text("utf-8")), "utf-8")
