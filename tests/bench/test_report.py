import dataclasses
import json
from pathlib import Path

import pytest

from bench import report
from bench.phase import Outcome, Spread
from bench.workloads import Workload

SMALL = Workload("W1", "small chat", "bench-unary", 32, most=1.8)
STREAM = Workload("W2", "small stream", "bench-stream-100", 32, chunks=100, most=2.5)
CROWD = Workload(
    "W4", "slow streams", "bench-stream-100-50", 1000, chunks=100, arrival_seconds=2.0, most_first_ms=250, most_stream_kb=60
)


def outcome(
    cpu_us: float = 100.0,
    *,
    responses: int = 1000,
    failures: dict[str, int] | None = None,
    p50: float = 1.0,
    first_p99: float = 20.0,
    rss: tuple[int, int] = (0, 0),
    foreign_seconds: float = 0.0,
) -> Outcome:
    """An outcome of 1,000 answers of 10 chunks each in 2 seconds, unless it is said otherwise."""
    seconds = cpu_us * responses / 1e6
    return Outcome(
        seconds=2.0,
        responses=responses,
        chunks=responses * 10,
        messages=0,
        failures=failures or {},
        latency=Spread(p50, 2.0, 3.0, 4.0),
        first=Spread(p50 / 2, 2.0, first_p99, 30.0),
        cpu_seconds={"gateway": seconds, "load": seconds / 10, "mock": seconds / 20},
        foreign_seconds=foreign_seconds,
        rss_before=rss[0],
        rss_peak=rss[1],
    )


def test_ratios_are_taken_within_a_round_since_the_machines_speed_drifts_between_rounds() -> None:
    rounds = [
        {"floor": outcome(100.0), "twinspan": outcome(150.0)},
        {"floor": outcome(200.0), "twinspan": outcome(320.0)},
        {"floor": outcome(110.0), "twinspan": outcome(187.0)},
    ]

    row = report.row(SMALL, "twinspan", rounds)

    assert row.cpu_us == 187.0
    assert row.ratio == pytest.approx(1.6)
    assert row.ratios == pytest.approx((1.5, 1.7))
    assert report.row(SMALL, "floor", rounds).ratio == 1.0


def test_streams_are_paid_for_by_the_chunk() -> None:
    row = report.row(STREAM, "twinspan", [{"floor": outcome(100.0), "twinspan": outcome(250.0)}])

    assert (row.unit, row.cpu_us, row.units_per_second) == ("chunk", 25.0, 5000.0)
    assert (row.load_cpu_us, row.mock_cpu_us) == (2.5, 1.25)


def test_grpc_is_compared_with_the_echo() -> None:
    grpc = dataclasses.replace(SMALL, name="W7", grpc=True, most=1.5)

    row = report.row(grpc, "twinspan", [{"echo": outcome(100.0), "twinspan": outcome(160.0)}])

    assert (row.baseline, row.ratio) == ("echo", 1.6)
    assert row.missed == ["1.6 times the CPU of the echo, aim 1.5"]


def test_an_answers_time_is_compared_with_that_of_an_answer_without_a_gateway() -> None:
    row = report.row(SMALL, "twinspan", [{"direct": outcome(p50=0.5), "twinspan": outcome(p50=2.0)}])

    assert (row.p50_ms, row.wait) == (2.0, 4.0)


def test_another_gateway_is_something_to_compare_with_too() -> None:
    rounds = [{"floor": outcome(100.0), "twinspan": outcome(150.0), "other": outcome(300.0)}]

    assert report.row(SMALL, "twinspan", rounds, ["other"]).over == {"other": 0.5}
    other = report.row(SMALL, "other", rounds, ["other"])
    assert (other.over, other.ratio) == ({}, 3.0)


def test_a_target_that_answered_nothing_right_has_failures_and_no_costs() -> None:
    rounds = [
        {"floor": outcome(100.0), "twinspan": outcome(responses=0, failures={"status 500": 200})},
        {"floor": outcome(100.0), "twinspan": outcome(responses=0, failures={"status 500": 7, "cut short": 1})},
    ]

    row = report.row(SMALL, "twinspan", rounds)

    assert (row.cpu_us, row.ratio, row.ratios, row.failed) == (None, None, None, 208)
    assert report.verdict([row], None).splitlines() == [
        "Failed: W1 small chat, 32 open, twinspan: 207 times: status 500.",
        "Failed: W1 small chat, 32 open, twinspan: 1 times: cut short.",
    ]


def test_aims_that_are_reached_are_not_spoken_of_and_those_that_are_missed_are() -> None:
    cheap = report.row(SMALL, "twinspan", [{"floor": outcome(100.0), "twinspan": outcome(180.0)}])
    dear = report.row(SMALL, "twinspan", [{"floor": outcome(100.0), "twinspan": outcome(190.0)}])

    assert cheap.missed == []
    assert report.verdict([cheap, dear], 75.2).splitlines() == [
        "Idle, without the embedded model: 75 MB, aim 120.",
        "Missed: W1 small chat, 32 open, twinspan: 1.9 times the CPU of the floor, aim 1.8.",
    ]


def test_a_stream_of_a_crowd_takes_what_the_memory_grew_by_at_most() -> None:
    grown = (80 * 1024**2, 80 * 1024**2 + 61 * 1000 * 1024)

    row = report.row(CROWD, "twinspan", [{"floor": outcome(), "twinspan": outcome(first_p99=251.0, rss=grown)}])

    assert row.stream_kb == 61.0
    assert row.missed == ["251 ms to the first event (p99), aim 250", "61 KB a stream, aim 60"]


@pytest.mark.parametrize("target", sorted(report.YARDSTICKS))
def test_what_is_only_there_for_comparison_has_no_aims(target: str) -> None:
    slow = outcome(900.0, first_p99=999.0, rss=(0, 2**30))

    assert report.row(CROWD, target, [{target: slow, "floor": outcome(100.0)} | {target: slow}]).missed == []


def test_the_table_says_what_each_target_took() -> None:
    rounds = [
        {"direct": outcome(10.0, p50=0.5), "floor": outcome(100.0), "twinspan": outcome(150.0)},
        {"direct": outcome(10.0, p50=0.5), "floor": outcome(100.0), "twinspan": outcome(210.0, failures={"status 500": 2})},
    ]
    rows = [report.row(SMALL, target, rounds) for target in rounds[0]]

    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.table(rows).splitlines()]

    assert {len(line) for line in lines} == {13}
    shown = dict(zip(lines[0], lines[4], strict=True))
    assert shown == {
        "workload": "W1 small chat, 32 open, a request",
        "target": "twinspan",
        "CPU, µs a unit": "180.0",
        "over the floor or echo": "1.80 (1.50 to 2.10)",
        "aim": "1.8",
        "p50 ms": "1.00",
        "over direct": "2.0",
        "p99 ms": "3.00",
        "units/s": "500",
        "MB": "0",
        "failed": "2",
        "load, µs": "18.0",
        "mock, µs": "9.0",
    }


def test_the_table_has_a_column_for_each_other_gateway_and_a_second_part_for_crowds() -> None:
    rounds = [{"floor": outcome(100.0), "twinspan": outcome(150.0, rss=(0, 1024**2)), "other": outcome(300.0, rss=(0, 1024**2))}]
    rows = [report.row(CROWD, target, rounds, ["other"]) for target in rounds[0]]

    costs, streams = report.table(rows).split("\n\n")

    assert [line.split("|")[6].strip() for line in costs.splitlines()] == ["over other", "---:", "0.33", "0.50", ""]
    assert "| 1,000 | twinspan | 0.5 | 20.0 | 250 | 1.0 | 60 | 0 |" in streams.splitlines()


def test_the_figures_are_written_as_json(tmp_path: Path) -> None:
    rounds = [{"floor": outcome(100.0), "twinspan": outcome(150.0)}]
    rows = [report.row(SMALL, target, rounds) for target in rounds[0]]

    report.write_json(tmp_path / "new" / "figures.json", {"command": "python -m bench"}, rows)

    written = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert written["command"] == "python -m bench"
    assert [(row["target"], row["ratio"], row["most"]) for row in written["rows"]] == [("floor", 1.0, None), ("twinspan", 1.5, 1.8)]


def test_a_machine_that_was_busy_with_something_else_is_told_of() -> None:
    calm = report.row(SMALL, "twinspan", [{"floor": outcome(), "twinspan": outcome(foreign_seconds=0.1)}])
    busy = report.row(SMALL, "twinspan", [{"floor": outcome(), "twinspan": outcome(foreign_seconds=1.0)}])

    assert report.verdict([calm], None) == ""
    assert report.verdict([busy], None).startswith("Disturbed: 0.5 processors were busy with something else.")
