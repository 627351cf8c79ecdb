import asyncio

import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.resources import Resource
from twinspan.v1.content_pb2 import Usage

from gateway.telemetry.genai import GenAIMetrics
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.setup import start_export
from tests.gateway.telemetry.collector import grpc_collector


def _recorder() -> Recorder:
    ticks = iter(range(100))
    recorder = Recorder(usage_histograms=True, clock=lambda: float(next(ticks)))
    attempt = recorder.attempt("smart", "gemini", "flash")
    attempt.chunk()
    attempt.end(usage=Usage(input_tokens=10, output_tokens=20))
    recorder.attempt("smart", "gemini", "flash").end("rate_limited")
    recorder.attempt("", "local", "smollm2").end()
    return recorder


FLASH = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "gcp.gemini",
    "gen_ai.request.model": "flash",
    "twinspan.agent": "smart",
}
LOCAL = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "local", "gen_ai.request.model": "smollm2"}
SERIES = {
    "gen_ai.client.token.usage": [
        ({**FLASH, "gen_ai.token.type": "input"}, 1, 10.0),
        ({**FLASH, "gen_ai.token.type": "output"}, 1, 20.0),
    ],
    "gen_ai.client.operation.duration": [(FLASH, 1, 2.0), ({**FLASH, "error.type": "rate_limited"}, 1, 1.0), (LOCAL, 1, 1.0)],
    "gen_ai.server.time_to_first_token": [(FLASH, 1, 1.0)],
}


async def test_the_counts_arrive_at_a_collector_at_each_interval_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grpc_collector() as collector, asyncio.timeout(5):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
        export = start_export(traces=False)
        export.export_metrics(_recorder())
        await collector.got_metrics.wait()
        before_the_end = len(collector.metrics)

        assert await export.stop(timeout_seconds=4)
        assert collector.series() == SERIES
        assert len(collector.metrics) > before_the_end


def test_nothing_counted_is_nothing_sent() -> None:
    metrics = GenAIMetrics(Recorder(usage_histograms=True), ConsoleMetricExporter(), Resource({}), 60)

    assert metrics.collect().resource_metrics == []


def test_buckets_are_those_of_the_conventions() -> None:
    metrics = GenAIMetrics(_recorder(), ConsoleMetricExporter(), Resource({}), 60)

    bounds = {metric.name: metric.data.data_points[0] for metric in metrics.collect().resource_metrics[0].scope_metrics[0].metrics}

    assert {name: (point.explicit_bounds[0], point.explicit_bounds[-1]) for name, point in bounds.items()} == {  # type: ignore[union-attr]  # all are histograms
        "gen_ai.client.token.usage": (1, 67108864),
        "gen_ai.client.operation.duration": (0.01, 81.92),
        "gen_ai.server.time_to_first_token": (0.001, 10.0),
    }
