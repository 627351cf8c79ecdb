"""What one process has counted, as bytes for another one. `gateway.telemetry.totals` adds several up.

A report holds whatever a recorder holds, found by its type, so that a new count needs nothing here. Times are told by the wall
clock, which all processes of a machine share. It may be made in a thread: tables are copied, each in one step, before they are
walked.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from gateway.telemetry.conditions import Conditions
from gateway.telemetry.counts import LabelCounts, ProviderCounts
from gateway.telemetry.histogram import Histogram
from gateway.telemetry.recorder import Recorder

_TIMES: Final = frozenset({"started_at"})

Number: TypeAlias = int | float


class HistogramReport(msgspec.Struct, array_like=True, frozen=True):
    """A histogram: its bounds, how many values each bucket holds, their sum, and its exemplars (trace, value, time) by bucket."""

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float
    exemplars: dict[int, tuple[str, float, float]]


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one object has counted, by the names of its attributes.

    Attributes:
        numbers: Plain numbers.
        histograms: Histograms.
        labels: Numbers by label values.
        tables: Numbers by a word.
        histogram_tables: Histograms by a word.
        samples: The last values of something.
    """

    numbers: dict[str, Number] = {}
    histograms: dict[str, HistogramReport] = {}
    labels: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    tables: dict[str, dict[str, int]] = {}
    histogram_tables: dict[str, dict[str, HistogramReport]] = {}
    samples: dict[str, list[float]] = {}


class ProviderReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a provider is; times are seconds since 1970."""

    recent: list[float] = []
    failures: list[bool] = []
    last_error: str = ""
    last_error_at: float = 0.0
    last_success_at: float | None = None


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process has counted.

    Attributes:
        own: The recorder's own counts.
        batches: What batches have done.
        targets: By agent, provider and model.
        methods: By the RPC's full name.
        providers: By name.
        conditions: How things stand beside that.
        process: What the operating system says of the process, by the names of `gateway.telemetry.process`.
    """

    own: Counts
    batches: Counts
    targets: list[tuple[tuple[str, str, str], Counts]]
    methods: dict[str, Counts]
    providers: dict[str, ProviderReport]
    conditions: Conditions = Conditions()
    process: dict[str, float] = {}


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Report)


def report(recorder: Recorder, process: Mapping[str, float], *, samples: bool = True) -> bytes:
    """Returns what a recorder has counted.

    Args:
        recorder: The recorder.
        process: What the operating system says of the process.
        samples: Whether the last values are wanted too, of which percentiles are made; they are most of a report.
    """
    since_1970 = time.time() - recorder.clock()
    return _ENCODER.encode(
        Report(
            own=_counts(recorder, vars(recorder), samples=samples),
            batches=_counts(recorder.batches, recorder.batches.__slots__, samples=samples),
            targets=[(key, _counts(target, target.__slots__, samples=samples)) for key, target in list(recorder.targets.items())],
            methods={name: _counts(method, method.__slots__, samples=samples) for name, method in list(recorder.methods.items())},
            providers={name: _provider(one, since_1970, samples=samples) for name, one in list(recorder.providers.items())},
            conditions=recorder.conditions(),
            process=dict(process),
        )
    )


def decode(encoded: bytes) -> Report:
    """Returns a report."""
    return _DECODER.decode(encoded)


def _counts(counted: object, names: Iterable[str], *, samples: bool) -> Counts:
    found = Counts({}, {}, {}, {}, {}, {})
    for name in list(names):
        value: Any = getattr(counted, name)
        if name.startswith("_") or name in _TIMES or isinstance(value, (bool, str)):
            continue
        if isinstance(value, (int, float)):
            found.numbers[name] = value
        elif isinstance(value, Histogram):
            found.histograms[name] = _histogram(value)
        elif isinstance(value, LabelCounts):
            found.labels[name] = list(value.values.items())
        elif isinstance(value, deque) and samples:
            found.samples[name] = list(value)
        elif isinstance(value, dict):
            _add_table(found, name, dict(value))
    return found


def _add_table(found: Counts, name: str, table: dict[Any, Any]) -> None:
    """Adds a table of numbers or of histograms; what holds other objects is told by itself."""
    kinds = {type(value) for value in table.values()}
    if kinds == {int}:
        found.tables[name] = table
    elif kinds == {Histogram}:
        found.histogram_tables[name] = {key: _histogram(value) for key, value in table.items()}


def _histogram(histogram: Histogram) -> HistogramReport:
    exemplars = {place: (one.trace_id, one.value, one.timestamp) for place, one in list(histogram.exemplars.items())}
    return HistogramReport(histogram.bounds, list(histogram.counts), histogram.sum, exemplars)


def _provider(counts: ProviderCounts, since_1970: float, *, samples: bool) -> ProviderReport:
    success = counts.last_success_at
    return ProviderReport(
        list(counts.recent) if samples else [],
        list(counts.failures),
        counts.last_error,
        counts.last_error_at + since_1970,
        None if success is None else success + since_1970,
    )
