"""What came of a run: medians over its rounds, ratios within a round, a table and JSON."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.phase import Outcome
from bench.workloads import MOST_IDLE_MB, Workload

DIRECT = "direct"
BASELINE = "floor"
GRPC_BASELINE = "echo"
GATEWAY = "twinspan"
YARDSTICKS = frozenset({DIRECT, BASELINE, GRPC_BASELINE})
"""The targets that are no gateways, and that no aim is meant for."""
_MOST_FOREIGN_CORES = 0.2
_KB = 1024
_MICROSECONDS = 1e6

Rounds = Sequence[Mapping[str, Outcome]]
"""What came of one workload: in each round, one outcome a target."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One target under one workload. Costs are medians of the rounds, ratios medians of the ratios within each round."""

    workload: str
    title: str
    connections: int
    target: str
    unit: str
    cpu_us: float | None
    """CPU of the target's process for one unit, in microseconds."""
    baseline: str
    """Which target that is compared with: the floor, or the echo for gRPC."""
    ratio: float | None
    """It over the baseline's."""
    ratios: tuple[float, float] | None
    """The lowest and the highest of these ratios."""
    most: float | None
    """What is aimed at."""
    over: Mapping[str, float]
    """Its CPU over that of each gateway that was given by hand."""
    wait: float | None
    """The median time of an answer over that of an answer without a gateway."""
    units_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    first_p50_ms: float | None
    first_p99_ms: float | None
    most_first_ms: float | None
    failures: Mapping[str, int]
    """Requests that failed, by what was wrong."""
    load_cpu_us: float | None
    """CPU of the load generator for one unit."""
    mock_cpu_us: float | None
    """CPU of the mock upstream for one unit."""
    foreign_cores: float
    """How many of the machine's processors were busy with something else."""
    memory_mb: float
    """The most that was resident; for all but a crowd, at the end of a round."""
    stream_kb: float | None
    """For a crowd: memory for one stream, the highest over what there was before it came."""
    most_stream_kb: float | None

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.failures.values())

    @property
    def missed(self) -> list[str]:
        """The aims that were not reached, in words."""
        pairs = (
            (self.ratio, self.most, f"times the CPU of the {self.baseline}"),
            (self.first_p99_ms, self.most_first_ms, "ms to the first event (p99)"),
            (self.stream_kb, self.most_stream_kb, "KB a stream"),
        )
        return [f"{had:,.4g} {what}, aim {aim:g}" for had, aim, what in pairs if had is not None and aim is not None and had > aim]


def row(workload: Workload, target: str, rounds: Rounds, others: Sequence[str] = ()) -> Row:
    """Returns what a target came to, over all rounds of a workload; `others` names the gateways that were given by hand."""
    own = [outcomes[target] for outcomes in rounds]
    baseline = GRPC_BASELINE if workload.grpc else BASELINE
    ratios = _ratios(rounds, target, baseline, lambda outcome: cpu_us(outcome, workload))
    over = {name: _ratios(rounds, target, name, lambda outcome: cpu_us(outcome, workload)) for name in others if name != target}
    failures: dict[str, int] = {}
    for outcome in own:
        for fault, count in outcome.failures.items():
            failures[fault] = failures.get(fault, 0) + count
    aimed_at = target not in YARDSTICKS
    crowd = workload.arrival_seconds is not None
    return Row(
        workload=workload.name,
        title=workload.title,
        connections=workload.connections,
        target=target,
        unit=workload.unit,
        cpu_us=_median(own, lambda outcome: cpu_us(outcome, workload)),
        baseline=baseline,
        ratio=_middle(ratios),
        ratios=(min(ratios), max(ratios)) if ratios else None,
        most=workload.most if aimed_at else None,
        over={name: statistics.median(found) for name, found in over.items() if found},
        wait=_middle(_ratios(rounds, target, DIRECT, lambda outcome: outcome.latency.p50 if outcome.latency else None)),
        units_per_second=_median(own, lambda outcome: _units(outcome, workload) / outcome.seconds) or 0.0,
        p50_ms=_median(own, lambda outcome: outcome.latency.p50 if outcome.latency else None),
        p99_ms=_median(own, lambda outcome: outcome.latency.p99 if outcome.latency else None),
        first_p50_ms=_median(own, lambda outcome: outcome.first.p50 if outcome.first else None),
        first_p99_ms=_median(own, lambda outcome: outcome.first.p99 if outcome.first else None),
        most_first_ms=workload.most_first_ms if aimed_at else None,
        failures=failures,
        load_cpu_us=_median(own, lambda outcome: cpu_us(outcome, workload, "load")),
        mock_cpu_us=_median(own, lambda outcome: cpu_us(outcome, workload, "mock")),
        foreign_cores=_median(own, lambda outcome: outcome.foreign_seconds / outcome.seconds) or 0.0,
        memory_mb=max(outcome.rss_peak for outcome in own) / _KB**2,
        stream_kb=max(outcome.rss_peak - outcome.rss_before for outcome in own) / _KB / workload.connections if crowd else None,
        most_stream_kb=workload.most_stream_kb if aimed_at else None,
    )


def cpu_us(outcome: Outcome, workload: Workload, process: str = "gateway") -> float | None:
    """Returns the CPU of a process for one unit, in microseconds; None without such a process or a unit."""
    units = _units(outcome, workload)
    seconds = outcome.cpu_seconds.get(process)
    return None if seconds is None or not units else seconds / units * _MICROSECONDS


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as tables in Markdown: the costs, and what a crowd of streams took."""
    others = sorted({name for entry in rows for name in entry.over})
    names = ["workload", "target", "CPU, µs a unit", "over the floor or echo", "aim", *(f"over {name}" for name in others)]
    names += ["p50 ms", "over direct", "p99 ms", "units/s", "MB", "failed", "load, µs", "mock, µs"]
    lines = [line(names), line(["---", "---", *["---:"] * (len(names) - 2)])]
    for entry in rows:
        cells = [place(entry), entry.target, number(entry.cpu_us), spread(entry), aim(entry)]
        cells += [number(entry.over.get(name), 2) for name in others]
        cells += [number(entry.p50_ms, 2), number(entry.wait, 1), number(entry.p99_ms, 2), f"{entry.units_per_second:,.0f}"]
        cells += [number(entry.memory_mb, 0), str(entry.failed), number(entry.load_cpu_us), number(entry.mock_cpu_us)]
        lines.append(line(cells))
    found = crowds(rows)
    return "\n".join([*lines, "", *found] if found else lines)


def crowds(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a table of what crowds of streams took; none without a crowd."""
    names = ["streams at once", "target", "first event p50 ms", "p99 ms", "aim", "memory a stream, KB", "aim", "failed"]
    lines = [line(names), line(["---", "---", *["---:"] * 6])]
    for entry in rows:
        if entry.stream_kb is not None:
            cells = [f"{entry.connections:,}", entry.target, number(entry.first_p50_ms), number(entry.first_p99_ms)]
            cells += [number(entry.most_first_ms, 0), number(entry.stream_kb), number(entry.most_stream_kb, 0), str(entry.failed)]
            lines.append(line(cells))
    return lines if len(lines) > 2 else []


def place(row: Row) -> str:
    """Returns which workload it is, over how many connections, and what is paid for."""
    return f"{row.workload} {row.title}, {row.connections:,} open, a {row.unit}"


def spread(row: Row) -> str:
    """Returns a row's ratio, with the lowest and highest of the rounds if these differ."""
    if row.ratios is None or row.ratios[0] == row.ratios[1]:
        return number(row.ratio, 2)
    return f"{number(row.ratio, 2)} ({row.ratios[0]:.2f} to {row.ratios[1]:.2f})"


def aim(row: Row) -> str:
    """Returns the ratio that is aimed at, and whether it was missed."""
    if row.most is None:
        return ""
    return f"{row.most:g}{' missed' if row.ratio is not None and row.ratio > row.most else ''}"


def line(cells: Sequence[str]) -> str:
    """Returns a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None, digits: int = 1) -> str:
    """Returns a number, or nothing for None."""
    return "" if value is None else f"{value:,.{digits}f}"


def verdict(rows: Sequence[Row], idle_mb: float | None) -> str:
    """Returns in words, a line each: the memory at rest, the aims that were missed, and what failed."""
    lines = []
    if idle_mb is not None:
        lines.append(f"Idle, without the embedded model: {idle_mb:.0f} MB, aim {MOST_IDLE_MB:g}.")
    foreign = statistics.mean(entry.foreign_cores for entry in rows)
    if foreign > _MOST_FOREIGN_CORES:
        lines.append(f"Disturbed: {foreign:.1f} processors were busy with something else. Times in ms, above all, mean little.")
    for entry in rows:
        where = f"{entry.workload} {entry.title}, {entry.connections:,} open, {entry.target}"
        lines += [f"Missed: {where}: {missed}." for missed in entry.missed]
        lines += [f"Failed: {where}: {count:,} times: {fault}." for fault, count in entry.failures.items()]
    return "\n".join(lines)


def write_json(path: Path, facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Writes the rows, and facts about the run, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "rows": [dataclasses.asdict(entry) for entry in rows]}, indent=1) + "\n")


def _ratios(rounds: Rounds, target: str, base: str, of: Callable[[Outcome], float | None]) -> list[float]:
    found = []
    for outcomes in rounds:
        if base in outcomes and (own := of(outcomes[target])) is not None and (other := of(outcomes[base])):
            found.append(own / other)
    return found


def _units(outcome: Outcome, workload: Workload) -> int:
    return outcome.chunks if workload.chunks else outcome.responses


def _median(outcomes: Sequence[Outcome], of: Callable[[Outcome], float | None]) -> float | None:
    return _middle([value for outcome in outcomes if (value := of(outcome)) is not None])


def _middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
