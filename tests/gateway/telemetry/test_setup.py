import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from gateway.telemetry.recorder import Recorder
from gateway.telemetry.setup import start_export
from gateway.telemetry.tracing import Tracing
from tests.gateway.telemetry.collector import grpc_collector, http_collector
from tests.gateway.telemetry.trees import METHOD, expected_tree, run_chat, without_first_chunk_time

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@asynccontextmanager
async def _silent_collector() -> AsyncIterator[str]:
    """Takes connections and never says a word."""
    release = asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        release.set()
        server.close()


@pytest.mark.parametrize(
    ("environment", "traces", "exports"),
    [
        ({}, None, False),
        ({}, False, False),
        ({}, True, True),
        (ENDPOINT, None, True),
        (ENDPOINT, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, None, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, None, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, None, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, None, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, True, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, True, False),
    ],
)
async def test_traces_are_made_only_if_somebody_wants_them(
    environment: dict[str, str], traces: bool | None, exports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    export = start_export(traces=traces)

    assert isinstance(export.tracer_provider, TracerProvider if exports else NoOpTracerProvider)
    assert await export.stop(timeout_seconds=5)


@pytest.mark.parametrize(
    ("environment", "metrics", "wants"),
    [
        ({}, None, False),
        ({}, True, True),
        (ENDPOINT, None, True),
        (ENDPOINT, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, None, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, None, True),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, None, False),
    ],
)
async def test_metrics_leave_only_if_somebody_wants_them(
    environment: dict[str, str], metrics: bool | None, wants: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    export = start_export(traces=False, metrics=metrics)

    assert export.wants_usage_histograms is wants
    assert await export.stop(timeout_seconds=5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "udp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
    ],
)
def test_a_value_that_is_not_supported_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=f"{name}: '{value}' is not supported; use "):
        start_export(traces=True, metrics=True)


async def test_further_processors_get_spans_without_any_export() -> None:
    exporter = InMemorySpanExporter()
    export = start_export(processors=[SimpleSpanProcessor(exporter)])

    Tracing(export.tracer_provider).server_span(METHOD, ()).end("OK")

    assert [span.name for span in exporter.get_finished_spans()] == [METHOD[1:]]
    assert [span.resource.attributes["service.name"] for span in exporter.get_finished_spans()] == ["twinspan"]
    assert await export.stop()


async def test_a_chat_s_tree_arrives_at_a_collector_over_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        export = start_export(metrics=False)

        run_chat(export.tracer_provider)

        assert await export.stop(timeout_seconds=5)
        assert [without_first_chunk_time(tree) for tree in collector.trees()] == [expected_tree()]


async def test_console_spans_go_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import asyncio\n"
        "from gateway.telemetry.setup import start_export\n"
        "from gateway.telemetry.tracing import Tracing\n"
        "export = start_export()\n"
        "Tracing(export.tracer_provider).server_span('/a.B/C', ()).end('OK')\n"
        "assert asyncio.run(export.stop())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OTEL_TRACES_EXPORTER": "console"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=True)

    assert '"name": "a.B/C"' in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, ["grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, ["http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, ["http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318"}, ["http"]),
    ],
)
def test_one_exporter_is_imported_once_it_is_wanted_and_the_port_tells_which(
    environment: dict[str, str], exporters: list[str]
) -> None:
    code = (
        "import sys\n"
        "from gateway.telemetry.setup import start_export\n"
        "start_export()\n"
        "print(*[name for name in ('grpc', 'http') if f'opentelemetry.exporter.otlp.proto.{name}.trace_exporter' in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout.split() == exporters


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_never_answers_does_not_hold_up_the_stop(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _silent_collector() as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        export = start_export()
        recorder = Recorder(usage_histograms=export.wants_usage_histograms)
        export.export_metrics(recorder)
        recorder.attempt("", "local", "m").end()
        Tracing(export.tracer_provider).server_span(METHOD, ()).end("OK")

        async with asyncio.timeout(5):
            assert not await export.stop(timeout_seconds=0.05)


async def test_a_collector_that_comes_back_gets_what_was_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grpc_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        export = start_export(metrics=False)
        for _ in range(3):
            Tracing(export.tracer_provider).server_span(METHOD, ()).end("OK")

        assert await export.stop(timeout_seconds=5)
        assert [tree.name for tree in collector.trees()] == [METHOD[1:]] * 3
