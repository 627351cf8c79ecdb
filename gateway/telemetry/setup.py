"""What of the telemetry leaves the process, as the standard `OTEL_*` variables say.

Traces and GenAI metrics go out over OTLP if an endpoint or an exporter is named, so that a newcomer without a collector sees no
failed exports; else nothing is recorded, and trace contexts are only passed on. Exporters are imported only if they are used: they
would take six megabytes and a third of a second. `gateway.app` owns what `start_export` returns; samplers, limits and batches are
the SDK's business, which reads their variables itself. `docs/tracing.md` says all this to users.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter

from gateway.telemetry.recorder import Recorder
from gateway.telemetry.sampling import HeadSamplingTracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

Signal = Literal["traces", "metrics"]

_EXPORTERS = ("otlp", "console", "none")
_PROTOCOLS = ("grpc", "http/protobuf")
_OTLP_HTTP_PORT = 4318
_DEFAULT_METRIC_INTERVAL_MS = 60_000


@dataclass(slots=True)
class Export:
    """What is exported, for as long as the process runs.

    Attributes:
        tracer_provider: For `Tracing` on either surface; a `NoOpTracerProvider` if no traces are exported.
        wants_usage_histograms: Whether the recorder must keep histograms of usage.
    """

    tracer_provider: trace.TracerProvider
    wants_usage_histograms: bool
    _resource: Resource
    _stops: list[Callable[[], None]] = field(default_factory=list)
    _aborts: list[Callable[[], None]] = field(default_factory=list)

    def export_metrics(self, recorder: Recorder) -> None:
        """Begins to export the GenAI metrics of a recorder, if metrics are exported at all."""
        if not self.wants_usage_histograms:
            return
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415 (see the module's docstring)

        from gateway.telemetry.genai import GenAIMetrics  # noqa: PLC0415 (the same)

        interval_ms = _metric_interval_ms()
        for name in _exporter_names("metrics"):
            exporter = _otlp_metric_exporter() if name == "otlp" else ConsoleMetricExporter()
            metrics = GenAIMetrics(recorder, exporter, self._resource, interval_ms / 1000)
            metrics.start()
            self._stops.append(metrics.stop)
            self._aborts.append(metrics.abort)

    async def stop(self, timeout_seconds: float = 3.0) -> bool:
        """Sends what is not sent yet and ends; after the timeout it gives up on what is left.

        Returns:
            Whether everything was handed to the exporters in time.
        """
        stops = [_in_thread(stop) for stop in self._stops]
        try:
            async with asyncio.timeout(timeout_seconds):
                for stopped in stops:
                    await stopped.wait()
        except TimeoutError:
            for abort in self._aborts:
                abort()
            return False
        return True


def start_export(
    *,
    service_name: str = "twinspan",
    version: str = "",
    instance: str = "",
    traces: bool | None = None,
    metrics: bool | None = None,
    processors: Sequence[SpanProcessor] = (),
) -> Export:
    """Begins to export traces.

    Args:
        service_name: The resource's `service.name`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` gives another.
        version: The resource's `service.version`.
        instance: The resource's `service.instance.id`, unless the environment gives another; empty for none.
        traces: Whether to export traces: None if an endpoint or an exporter is named in the environment, True in any case (to the
            default endpoint if need be), False never. `OTEL_TRACES_EXPORTER=none` and `OTEL_SDK_DISABLED=true` win over True.
        metrics: The same for GenAI metrics over OTLP.
        processors: Further processors of spans that have ended; with any, spans are made even if nothing is exported.

    Raises:
        ValueError: A variable has a value that is not supported; the message names both.
    """
    named = {"service.name": service_name, "service.version": version, **({"service.instance.id": instance} if instance else {})}
    resource = Resource.create(named).merge(OTELResourceDetector().detect())
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    names = [] if disabled or not _is_wanted("traces", traces) else _exporter_names("traces")
    wants_metrics = not disabled and _is_wanted("metrics", metrics) and bool(_exporter_names("metrics"))
    if wants_metrics:
        _protocol("metrics")
        _metric_interval_ms()
    if disabled or not (names or processors):
        return Export(trace.NoOpTracerProvider(), wants_metrics, resource)
    provider = HeadSamplingTracerProvider(resource=resource, shutdown_on_exit=False)
    export = Export(provider, wants_metrics, resource, [provider.shutdown])
    for processor in processors:
        provider.add_span_processor(processor)
    for name in names:
        if name == "otlp":
            exporter = _otlp_span_exporter()
            provider.add_span_processor(BatchSpanProcessor(exporter))
            export._aborts.append(exporter.shutdown)  # noqa: SLF001 (it is being built)
        else:
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    return export


def _is_wanted(signal: Signal, configured: bool | None) -> bool:
    if configured is not None:
        return configured
    named = (f"OTEL_{signal.upper()}_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return any(os.environ.get(name) for name in named)


def _exporter_names(signal: Signal) -> list[str]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()] or ["otlp"]
    for name in names:
        if name not in _EXPORTERS:
            raise ValueError(f"{variable}: '{name}' is not supported; use {', '.join(_EXPORTERS)}.")
    return [] if "none" in names else names


def _protocol(signal: Signal) -> str:
    """Returns the protocol; where none is given the endpoint's port tells, since by convention each protocol has its own."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "").strip()
        if protocol in _PROTOCOLS:
            return protocol
        if protocol:
            raise ValueError(f"{variable}: '{protocol}' is not supported; use {' or '.join(_PROTOCOLS)}.")
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    with suppress(ValueError):
        if urlsplit(endpoint).port == _OTLP_HTTP_PORT:
            return "http/protobuf"
    return "grpc"


def _metric_interval_ms() -> int:
    variable = "OTEL_METRIC_EXPORT_INTERVAL"
    text = os.environ.get(variable, "").strip() or str(_DEFAULT_METRIC_INTERVAL_MS)
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{variable}: '{text}' is not supported; use a whole number of milliseconds above 0.")
    return int(text)


def _otlp_span_exporter() -> SpanExporter:
    if _protocol("traces") == "grpc":
        from gateway.telemetry.otlp import SpanExporter as GrpcSpanExporter  # noqa: PLC0415 (see the module's docstring)

        return GrpcSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (the same)

    return OTLPSpanExporter()


def _otlp_metric_exporter() -> "MetricExporter":
    if _protocol("metrics") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 (the same)

        return OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 (the same)
        OTLPMetricExporter as HttpMetricExporter,
    )

    return HttpMetricExporter()


def _in_thread(function: Callable[[], None]) -> asyncio.Event:
    """Runs a blocking function in a daemon thread, which neither the event loop nor the interpreter's end will wait for."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            function()
        finally:
            with suppress(RuntimeError):  # the loop may be closed by then
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="twinspan-telemetry-stop", daemon=True).start()
    return done
