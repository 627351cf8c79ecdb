"""What came of a run: medians over its rounds, ratios within a round, a table and JSON."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.phase import Outcome
from bench.workloads import Workload

BASELINE = "floor"
GRPC_BASELINE = "echo"
_KB = 1024
_MICROSECONDS = 1e6


@dataclasses.dataclass(frozen=True)
class Row:
    """One target under one workload."""

    workload: str
    title: str
    connections: int
    target: str
    unit: str
    cpu_us: float | None
    """CPU of the target's process for one unit, in microseconds: the median of the rounds."""
    ratio: float | None
    """That over the floor's, or over the echo's for gRPC: the median of the ratios within each round."""
    ratios: tuple[float, float] | None
    """The lowest and the highest of these ratios."""
    most: float | None
    """What is aimed at."""
    units_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    first_p99_ms: float | None
    failures: int
    load_cpu_us: float
    """CPU of the load generator for one unit."""
    stream_kb: float | None = None
    """For a crowd: memory for one stream, the highest over what there was before it came."""

    @property
    def met(self) -> bool | None:
        """Whether the aim was reached; None where there is none."""
        return None if self.most is None or self.ratio is None else self.ratio <= self.most


def row(workload: Workload, target: str, rounds: Sequence[Mapping[str, Outcome]]) -> Row:
    """Returns what a target came to, over all rounds of a workload."""
    own = [outcomes[target] for outcomes in rounds]
    baseline = GRPC_BASELINE if workload.grpc else BASELINE
    costs = [cost for outcome in own if (cost := cpu_us(outcome, workload)) is not None]
    ratios = [
        cost / floor
        for outcomes in rounds
        if baseline in outcomes
        and (cost := cpu_us(outcomes[target], workload)) is not None
        and (floor := cpu_us(outcomes[baseline], workload))
    ]
    units = [_units(outcome, workload) for outcome in own]
    crowd = workload.arrival_seconds is not None
    return Row(
        workload=workload.name,
        title=workload.title,
        connections=workload.connections,
        target=target,
        unit=workload.unit,
        cpu_us=statistics.median(costs) if costs else None,
        ratio=statistics.median(ratios) if ratios else None,
        ratios=(min(ratios), max(ratios)) if ratios else None,
        most=workload.most if target not in {BASELINE, GRPC_BASELINE, "direct"} else None,
        units_per_second=statistics.median(count / outcome.seconds for count, outcome in zip(units, own, strict=True)),
        p50_ms=_median([outcome.latency.p50 for outcome in own if outcome.latency]),
        p99_ms=_median([outcome.latency.p99 for outcome in own if outcome.latency]),
        first_p99_ms=_median([outcome.first.p99 for outcome in own if outcome.first]),
        failures=sum(sum(outcome.failures.values()) for outcome in own),
        load_cpu_us=sum(outcome.cpu_seconds["load"] for outcome in own) / max(1, sum(units)) * _MICROSECONDS,
        stream_kb=max(outcome.rss_peak - outcome.rss_before for outcome in own) / _KB / workload.connections if crowd else None,
    )


def cpu_us(outcome: Outcome, workload: Workload) -> float | None:
    """Returns the CPU of the target's process for one unit, in microseconds; None without a process or a unit."""
    units = _units(outcome, workload)
    seconds = outcome.cpu_seconds.get("gateway")
    return None if seconds is None or not units else seconds / units * _MICROSECONDS


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = [
        "| workload | connections | target | CPU, µs a unit | over the floor | aim | units/s | p50 ms | p99 ms | failed |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for entry in rows:
        spread = f" ({entry.ratios[0]:.2f} to {entry.ratios[1]:.2f})" if entry.ratios and entry.ratios[0] != entry.ratios[1] else ""
        aim = "" if entry.most is None else f"{entry.most:g}{'' if entry.met else ' missed'}"
        lines.append(
            f"| {entry.workload} {entry.title}, a {entry.unit} | {entry.connections} | {entry.target} | {_number(entry.cpu_us)} "
            f"| {_number(entry.ratio, 2)}{spread} | {aim} | {entry.units_per_second:,.0f} | {_number(entry.p50_ms, 2)} "
            f"| {_number(entry.p99_ms, 2)} | {entry.failures} |"
        )
    crowds = [entry for entry in rows if entry.stream_kb is not None]
    if crowds:
        lines += [
            "",
            "| 1,000 streams at once | first event p99 ms | memory a stream, KB | failed |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {entry.target} | {_number(entry.first_p99_ms)} | {_number(entry.stream_kb)} | {entry.failures} |"
            for entry in crowds
        ]
    return "\n".join(lines)


def write_json(path: Path, facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Writes the rows, and facts about the run, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "rows": [dataclasses.asdict(entry) for entry in rows]}, indent=1) + "\n")


def _units(outcome: Outcome, workload: Workload) -> int:
    return outcome.chunks if workload.chunks else outcome.responses


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
