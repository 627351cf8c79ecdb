import json
from pathlib import Path
from typing import Any

import pytest

from bench import document, report
from bench.phase import Outcome, Spread
from bench.workloads import Workload

SMALL = Workload("W1", "small chat", "bench-unary", 32, most=1.8)


def outcome(cpu_us: float) -> Outcome:
    return Outcome(
        seconds=2.0,
        responses=1000,
        chunks=0,
        messages=0,
        failures={},
        latency=Spread(1.5, 2.0, 3.0, 4.0),
        first=None,
        cpu_seconds={"gateway": cpu_us / 1000, "load": 0.01},
        foreign_seconds=0.0,
    )


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    rounds = [{"direct": outcome(10.0), "floor": outcome(100.0), "twinspan": outcome(190.0)}]
    rows = [report.row(SMALL, target, rounds) for target in rounds[0]]
    facts = {
        "command": "python -m bench",
        "rounds": 1,
        "seconds_a_phase": 2.0,
        "processor": "2 x Example",
        "python": "3.11.7",
        "exported_spans": 1234,
        "idle_mb": 75.0,
    }
    report.write_json(tmp_path / "run.json", facts, rows)
    read: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    return read


def test_the_figures_of_a_run_replace_what_stood_behind_the_marker(run: dict[str, Any]) -> None:
    written = document.with_figures(f"# Title\n\n{document.MARKER}\nold figures\n", run)

    assert written.splitlines() == [
        "# Title",
        "",
        document.MARKER,
        "",
        "`python -m bench`, 1 times 2 s for each target, on 2 x Example,",
        "with Python 3.11.7. The gateway exported 1,234 spans meanwhile.",
        "",
        "| workload | gateway | CPU, µs | floor or echo, µs | ratio | aim | p50 ms | p99 ms | units/s | failed |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| W1 small chat, 32 open, a request | twinspan | 190.0 | 100.0 | 1.90 | 1.8 missed | 1.50 | 3.00 | 500 | 0 |",
        "",
        "- Idle, without the embedded model: 75 MB, aim 120.",
        "- Missed: W1 small chat, 32 open, twinspan: 1.9 times the CPU of the floor, aim 1.8.",
    ]
    assert document.with_figures(written, run) == written


def test_a_document_without_a_place_for_figures_is_left_alone(run: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no place"):
        document.with_figures("# Title\n", run)


def test_the_projects_document_has_a_place_for_figures() -> None:
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text("utf-8")

    assert text.count(document.MARKER) == 1
    assert "| twinspan |" in text.partition(document.MARKER)[2]
