"""The metrics of the semantic conventions for generative AI, sent over OTLP from the counts that are there anyway.

OpenTelemetry's meters would take some 30 µs a request for what `gateway.telemetry.recorder` has counted already. So nothing is
recorded here: a thread turns the counts into OTLP's data now and then and hands them to OpenTelemetry's exporter. An attempt is
what these conventions call an operation, since it is the one that has a provider, a model and an error.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway.telemetry.attributes import provider_name
from gateway.telemetry.counts import OK, TargetCounts
from gateway.telemetry.histogram import Histogram
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)

_SCOPE = InstrumentationScope("twinspan.gateway")
_Series = Iterable[tuple[dict[str, str], Histogram]]


class GenAIMetrics:
    """Exports the metrics every so often, from a thread of its own."""

    def __init__(self, recorder: Recorder, exporter: MetricExporter, resource: Resource, interval_seconds: float) -> None:
        """Makes the export; `start` begins it.

        Args:
            recorder: What was counted; it must keep histograms of usage.
            exporter: Sends.
            resource: Who counted.
            interval_seconds: The time between two exports.
        """
        self._recorder = recorder
        self._exporter = exporter
        self._resource = resource
        self._interval_seconds = interval_seconds
        self._since = time.time_ns()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="twinspan-genai-metrics", daemon=True)

    def start(self) -> None:
        """Begins to export."""
        self._thread.start()

    def stop(self) -> None:
        """Exports once more and ends. It blocks as long as the exporter does; `abort` cuts that short from another thread."""
        self._stopped.set()
        self._thread.join()
        self._exporter.shutdown()

    def abort(self) -> None:
        """Gives up on what is being sent."""
        self._stopped.set()
        self._exporter.shutdown()

    def collect(self) -> MetricsData:
        """Returns the metrics as they are now; none if nothing was counted yet."""
        targets = list(self._recorder.targets.values())
        series: tuple[tuple[str, str, str, Callable[[TargetCounts], _Series]], ...] = (
            ("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _usage),
            ("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _durations),
            ("gen_ai.server.time_to_first_token", "s", "Time to generate first token for successful responses.", _ttft),
        )
        now = time.time_ns()
        metrics: list[Metric] = []
        for name, unit, description, of_target in series:
            points = [
                self._point(histogram, {**_target_attributes(target), **attributes}, now)
                for target in targets
                for attributes, histogram in of_target(target)
                if histogram.count
            ]
            if points:
                metrics.append(Metric(name, description, unit, HistogramData(points, AggregationTemporality.CUMULATIVE)))
        scopes = [ScopeMetrics(_SCOPE, metrics, "")] if metrics else []
        return MetricsData([ResourceMetrics(self._resource, scopes, "")] if scopes else [])

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        data = self.collect()
        if not data.resource_metrics:
            return
        try:
            self._exporter.export(data)
        except Exception:  # noqa: BLE001 (whatever an exporter raises)
            # The thread must outlive whatever an exporter does. Exporters log failures to send by themselves.
            _log.exception("GenAI metrics could not be exported")

    def _point(self, histogram: Histogram, attributes: dict[str, str], now: int) -> HistogramDataPoint:
        counts = tuple(histogram.counts)
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._since,
            time_unix_nano=now,
            count=sum(counts),
            sum=histogram.sum,
            bucket_counts=counts,
            explicit_bounds=histogram.bounds,
            min=None,  # type: ignore[arg-type]  # optional in OTLP, and not among the counts
            max=None,  # type: ignore[arg-type]  # the same
        )


def _target_attributes(target: TargetCounts) -> dict[str, str]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider_name(target.provider),
        "gen_ai.request.model": target.model,
    }
    if target.agent:
        attributes["twinspan.agent"] = target.agent
    return attributes


def _usage(target: TargetCounts) -> _Series:
    if target.input_usage is not None and target.output_usage is not None:
        yield {"gen_ai.token.type": "input"}, target.input_usage
        yield {"gen_ai.token.type": "output"}, target.output_usage


def _durations(target: TargetCounts) -> _Series:
    for outcome, histogram in list(target.durations.items()):
        yield {} if outcome == OK else {"error.type": outcome}, histogram


def _ttft(target: TargetCounts) -> _Series:
    yield {}, target.ttft
