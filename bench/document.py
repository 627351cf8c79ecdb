"""Writes the figures of a run into docs/performance.md: `python -m bench.document FIGURES.json docs/performance.md`.

What stands before the marker is kept, and everything behind it is written anew.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import report
from bench.report import Row

MARKER = "<!-- From here on, the document is written by: python -m bench.document FIGURES.json docs/performance.md -->"


def with_figures(document: str, run: dict[str, Any]) -> str:
    """Returns a document with the figures of a run, as `report.write_json` wrote them.

    Raises:
        ValueError: The document has no marker.
    """
    kept, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError("The document has no place for figures.")
    rows = msgspec.convert(run["rows"], list[Row])
    intro = (
        f"`{run['command']}`, {run['rounds']} times {run['seconds_a_phase']:g} s for each target, on {run['processor']},\n"
        f"with Python {run['python']}. The gateway exported {run['exported_spans']:,} spans meanwhile."
    )
    verdict = [f"- {line}" for line in report.verdict(rows, run["idle_mb"]).splitlines()]
    parts = [kept.rstrip(), MARKER, intro, _costs(rows), "\n".join(report.crowds(rows)), "\n".join(verdict)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _costs(rows: Sequence[Row]) -> str:
    """The gateways' rows, with what they are compared with in a column and not in rows of their own."""
    names = ["workload", "gateway", "CPU, µs", "floor or echo, µs", "ratio", "aim", "p50 ms", "p99 ms", "units/s", "failed"]
    lines = [report.line(names), report.line(["---", "---", *["---:"] * 8])]
    bases = {(row.title, row.connections): row.cpu_us for row in rows if row.target == row.baseline}
    for row in rows:
        if row.target in report.YARDSTICKS:
            continue
        cells = [report.place(row), row.target, report.number(row.cpu_us), report.number(bases.get((row.title, row.connections)))]
        cells += [report.spread(row), report.aim(row), report.number(row.p50_ms, 2), report.number(row.p99_ms, 2)]
        lines.append(report.line([*cells, f"{row.units_per_second:,.0f}", str(row.failed)]))
    return "\n".join(lines)


if __name__ == "__main__":
    _figures, _document = Path(sys.argv[1]), Path(sys.argv[2])
    _document.write_text(with_figures(_document.read_text("utf-8"), json.loads(_figures.read_text("utf-8"))), "utf-8")
