"""The sum of what several processes have counted, as a recorder that shows itself like any other.

Above are `stats` and `metrics`, which do not know that there were several; below are the reports. Pure, the clock apart.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.telemetry.conditions import Conditions
from gateway.telemetry.conditions import merged as merged_conditions
from gateway.telemetry.counts import LabelCounts, ProviderCounts
from gateway.telemetry.histogram import Exemplar, Histogram, merged
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.report import Counts, HistogramReport, ProviderReport, Report, decode, report

_TARGET_LIMIT: Final = 4000
"""How many targets of all processes are told apart."""

_LEAST: Final = frozenset({"start_time_seconds", "max_fds"})
"""What of a process is not added up."""

_STAYS: Final = frozenset({"cpu_seconds_total"})
"""What of a process counts on when it has ended."""


@dataclass(slots=True)
class Totals:
    """What several processes have counted.

    Attributes:
        recorder: The sums, with how things stand. Its clock is the wall clock.
        process: What the operating system says of the processes.
    """

    recorder: Recorder
    process: dict[str, float] = field(default_factory=dict)


def total(reports: Iterable[bytes], started_at: float) -> Totals:
    """Returns the sum of reports.

    Args:
        reports: The reports. Where there are too many targets, those of the first reports are told apart.
        started_at: When the first of the processes was started, in seconds since 1970.
    """
    recorder = Recorder(target_limit=_TARGET_LIMIT, clock=time.time)
    recorder.started_at = started_at
    sums = Totals(recorder)
    conditions: list[Conditions] = []
    for encoded in reports:
        one = decode(encoded)
        _add(sums, one)
        conditions.append(one.conditions)
    standing = merged_conditions(conditions)
    recorder.conditions = lambda: standing
    return sums


def laid_down(reports: Iterable[bytes]) -> bytes:
    """Returns one report of processes that have ended: what they had counted, and nothing of how they stood."""
    sums = total(reports, 0.0)
    recorder = sums.recorder
    recorder.batches.active = recorder.batches.pending = 0
    recorder.conditions = Conditions
    for method in recorder.methods.values():
        method.inflight = 0
    process = {name: value for name, value in sums.process.items() if name in _STAYS}
    return report(recorder, process, samples=False)


def _add(sums: Totals, one: Report) -> None:
    recorder = sums.recorder
    _add_counts(recorder, one.own)
    _add_counts(recorder.batches, one.batches)
    for key, counts in one.targets:
        _add_counts(recorder.target(*key), counts)
    for name, counts in one.methods.items():
        _add_counts(recorder.method(name), counts)
    for name, provider in one.providers.items():
        _add_provider(recorder.providers.setdefault(name, ProviderCounts()), provider)
    for name, value in one.process.items():
        before = sums.process.get(name)
        sums.process[name] = value if before is None else min(before, value) if name in _LEAST else before + value


def _add_counts(counted: object, counts: Counts) -> None:
    """Adds to an object's counts. What it does not have is passed over: another release of the gateway has told it."""
    for name, number in counts.numbers.items():
        if hasattr(counted, name):
            setattr(counted, name, getattr(counted, name) + number)
    for name, one in counts.histograms.items():
        if hasattr(counted, name):
            setattr(counted, name, _sum(getattr(counted, name), one))
    for name, labels in counts.labels.items():
        table: LabelCounts | None = getattr(counted, name, None)
        if table is not None:
            for values, count in labels:
                table.add(*values, amount=count)
    for name, numbers in counts.tables.items():
        words: dict[str, int] = getattr(counted, name, {})
        for word, count in numbers.items():
            words[word] = words.get(word, 0) + count
    for name, histograms in counts.histogram_tables.items():
        known: dict[str, Histogram] = getattr(counted, name, {})
        for word, one in histograms.items():
            known[word] = _sum(known.get(word), one)
    for name, samples in counts.samples.items():
        if hasattr(counted, name):
            setattr(counted, name, deque([*getattr(counted, name), *samples]))


def _sum(histogram: Histogram | None, one: HistogramReport) -> Histogram:
    other = Histogram(one.bounds)
    other.counts, other.sum = one.counts, one.sum
    other.exemplars = {place: Exemplar(*exemplar) for place, exemplar in one.exemplars.items()}
    if histogram is None or histogram.bounds != one.bounds:
        return other
    return merged((histogram, other), one.bounds)


def _add_provider(counts: ProviderCounts, one: ProviderReport) -> None:
    counts.recent = deque([*counts.recent, *one.recent])
    counts.failures = deque([*counts.failures, *one.failures])
    if one.last_error and one.last_error_at >= counts.last_error_at:
        counts.last_error, counts.last_error_at = one.last_error, one.last_error_at
    if one.last_success_at is not None:
        counts.last_success_at = max(one.last_success_at, counts.last_success_at or 0.0)
