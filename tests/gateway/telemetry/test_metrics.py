import asyncio
import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bridge.telemetry.metrics import HttpMetrics
from gateway.telemetry.counts import OTHER
from gateway.telemetry.metrics import register, render
from gateway.telemetry.recorder import Recorder
from tests.gateway.telemetry.busy import TRACE, busy

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

STREAM = (("method", "Stream"), ("service", "twinspan.v1.ChatService"))
LOCAL = (("agent", "smart"), ("model", "smollm2"), ("provider", "local"))
LOCAL_DIRECT = (("agent", ""), ("model", "smollm2"), ("provider", "local"))
GROK = (("agent", "smart"), ("model", "grok"), ("provider", "xai"))


def _samples(recorder: Recorder) -> Samples:
    registry = CollectorRegistry()
    register(registry, recorder, "1.2.3")
    body, _ = render(registry, "")
    samples: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def test_every_count_is_rendered() -> None:
    samples = _samples(busy())

    counters = {name: values for name, values in samples.items() if name.startswith("twinspan_") and "_bucket" not in name}
    python = counters.pop("twinspan_build_info")
    assert [dict(labels)["version"] for labels in python] == ["1.2.3"]
    assert counters == {
        "twinspan_grpc_requests_total": {
            (("code", "OK"), *STREAM): 1,
            (("code", "CANCELLED"), *STREAM): 1,
            (("code", "UNAVAILABLE"), *STREAM): 1,
            (("code", "OK"), ("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 1,
        },
        "twinspan_inflight_requests": {STREAM: 1, (("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 0},
        "twinspan_request_duration_seconds_count": {
            STREAM: 3,
            (("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 1,
        },
        "twinspan_request_duration_seconds_sum": {STREAM: 4, (("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 0},
        "twinspan_gateway_overhead_seconds_count": {
            STREAM: 3,
            (("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 1,
        },
        "twinspan_gateway_overhead_seconds_sum": {
            STREAM: 1.5,
            (("method", "GetStats"), ("service", "twinspan.v1.AdminService")): 0,
        },
        "twinspan_upstream_requests_total": {GROK: 1, LOCAL: 1, LOCAL_DIRECT: 1},
        "twinspan_upstream_errors_total": {GROK: 1, LOCAL: 0, LOCAL_DIRECT: 0},
        "twinspan_upstream_request_duration_seconds_count": {GROK: 1, LOCAL: 1, LOCAL_DIRECT: 1},
        "twinspan_upstream_request_duration_seconds_sum": {GROK: 1, LOCAL: 1.5, LOCAL_DIRECT: 0},
        "twinspan_ttft_seconds_count": {GROK: 0, LOCAL: 1, LOCAL_DIRECT: 0},
        "twinspan_ttft_seconds_sum": {GROK: 0, LOCAL: 1, LOCAL_DIRECT: 0},
        "twinspan_inter_token_seconds_count": {GROK: 0, LOCAL: 2, LOCAL_DIRECT: 0},
        "twinspan_inter_token_seconds_sum": {GROK: 0, LOCAL: 0.5, LOCAL_DIRECT: 0},
        "twinspan_tokens_total": {
            tuple(sorted((*target, ("direction", direction)))): count
            for target, direction, count in (
                (GROK, "input", 0),
                (GROK, "output", 0),
                (LOCAL, "input", 10),
                (LOCAL, "output", 20),
                (LOCAL_DIRECT, "input", 1),
                (LOCAL_DIRECT, "output", 2),
            )
        },
        "twinspan_provider_cache_tokens_total": {(("kind", "hit"),): 4, (("kind", "miss"),): 6, (("kind", "creation"),): 3},
        "twinspan_cost_usd_total": {GROK: 0, LOCAL: 0.5, LOCAL_DIRECT: 0},
        "twinspan_unpriced_requests_total": {GROK: 0, LOCAL: 0, LOCAL_DIRECT: 1},
        "twinspan_reasoning_tokens_total": {GROK: 0, LOCAL: 5, LOCAL_DIRECT: 0},
        "twinspan_context_limit_errors_total": {(): 0},
        "twinspan_forwarded_bytes_total": {
            (("direction", "sent"), ("provider", "xai")): 100,
            (("direction", "received"), ("provider", "xai")): 1000,
        },
        "twinspan_batches_active": {(): 1},
        "twinspan_batch_lines_pending": {(): 7},
        "twinspan_batch_lines_total": {(("result", "completed"),): 3, (("result", "failed"),): 2},
        "twinspan_errors_total": {
            (("kind", "cancelled"), ("provider", "")): 1,
            (("kind", "targets_exhausted"), ("provider", "xai")): 1,
        },
        "twinspan_stream_interrupts_total": {(("reason", "provider_timeout"),): 1},
        "twinspan_auth_failure_total": {(("type", "missing"),): 1},
        "twinspan_ratelimit_rejected_total": {(("limit", "requests"), ("scope", "key")): 1},
        "twinspan_budget_rejected_total": {(("scope", "team"),): 1},
        "twinspan_cb_transitions_total": {(("state", "open"),): 1},
        "twinspan_cb_state": {(("key", "smart/openai/gpt-5"),): 1},
        "twinspan_session_pin_changes_total": {(("reason", "failure"),): 1},
        "twinspan_session_active": {(): 2},
        "twinspan_hedges_total": {(): 1},
        "twinspan_summarization_retries_total": {(): 1},
        "twinspan_ratelimit_rpm_available": {(("host", "api.openai.com"),): 14},
        "twinspan_ratelimit_tpm_available": {(("host", "api.openai.com"),): 900},
        "twinspan_billing_spend_usd": {(("provider", "openai"),): 1.5},
        "twinspan_billing_exhausted": {(("provider", "openai"),): 0},
        "twinspan_account_selection_total": {(("account", "team-a"), ("provider", "openai"), ("result", "ok")): 1},
        "twinspan_store_failures_total": {(): 1},
        "twinspan_key_store_failures_total": {(): 1},
        "twinspan_model_discovery_total": {(("provider", "openai"), ("result", "ok")): 1},
        "twinspan_auth_denials_total": {(("reason", "role"),): 1},
        "twinspan_auth_success_total": {(): 1},
        "twinspan_retries_total": {(): 1},
        "twinspan_panics_total": {(): 1},
        "twinspan_stream_stalled_total": {(): 1},
        "twinspan_empty_stream_total": {(): 1},
        "twinspan_agent_cooldowns_total": {(): 1},
        "twinspan_agent_targets_exhausted_total": {(): 1},
        "twinspan_uptime_seconds": {(): 4},
        "twinspan_workers": {(): 1},
        "twinspan_worker_restarts_total": {(): 0},
        "twinspan_worker_silences_total": {(): 0},
        "twinspan_event_loop_lag_seconds_count": {(): 1},
        "twinspan_event_loop_lag_seconds_sum": {(): 0.002},
    }


def test_buckets_are_cumulative_and_end_with_everything() -> None:
    buckets = _samples(busy())["twinspan_inter_token_seconds_bucket"]

    of_local = {dict(labels)["le"]: count for labels, count in buckets.items() if set(LOCAL) <= set(labels)}
    assert (of_local["0.1"], of_local["0.25"], of_local["0.5"], of_local["+Inf"]) == (0, 2, 2, 2)


def test_the_process_s_memory_and_time_are_there() -> None:
    samples = _samples(Recorder())

    assert samples["process_resident_memory_bytes"][()] > 0
    assert "process_cpu_seconds_total" in samples


async def test_tasks_are_counted_once_the_loop_is_known() -> None:
    registry = CollectorRegistry()
    collector = register(registry, Recorder(), "1")
    assert b"asyncio_tasks" not in render(registry, "")[0]

    collector.watch(asyncio.get_running_loop())

    body, _ = await asyncio.to_thread(render, registry, "")
    assert b"twinspan_asyncio_tasks 1.0" in body


def test_openmetrics_has_the_trace_of_a_sampled_request() -> None:
    registry = CollectorRegistry()
    register(registry, busy(), "1")

    body, content_type = render(registry, "application/openmetrics-text; version=1.0.0,text/plain;q=0.5")

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = {
        family.name: (sample.exemplar.labels, sample.exemplar.value)
        for family in openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # has no types
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert exemplars == {
        "twinspan_request_duration_seconds": ({"trace_id": TRACE}, 4.0),
        "twinspan_upstream_request_duration_seconds": ({"trace_id": TRACE}, 1.5),
        "twinspan_ttft_seconds": ({"trace_id": TRACE}, 1.0),
    }


def test_attempts_that_were_longer_than_the_context_are_counted_over_all_models() -> None:
    recorder = Recorder()
    for model in ("small", "small", "smaller"):
        recorder.attempt("", "local", model).end("context_exceeded")

    assert _samples(recorder)["twinspan_context_limit_errors_total"] == {(): 3}


def test_models_beyond_the_limit_share_one_label() -> None:
    recorder = Recorder(target_limit=3)

    for number in range(10):
        recorder.attempt("", "local", f"made-up-{number}").end()

    requests = _samples(recorder)["twinspan_upstream_requests_total"]
    assert {dict(labels)["model"]: count for labels, count in requests.items()} == {
        "made-up-0": 1,
        "made-up-1": 1,
        "made-up-2": 1,
        OTHER: 7,
    }


def test_methods_and_reasons_beyond_the_limit_share_one_label() -> None:
    recorder = Recorder()

    for number in range(300):
        recorder.call(f"/made.up/Method{number}").end("UNIMPLEMENTED")
        recorder.auth_denied(f"reason {number}")

    samples = _samples(recorder)
    for name in ("twinspan_grpc_requests_total", "twinspan_auth_denials_total"):
        counts = {dict(labels).get("method") or dict(labels)["reason"]: count for labels, count in samples[name].items()}
        assert len(counts) == 201
        assert counts[OTHER] == 100


def test_the_document_lists_every_metric_with_its_type_and_labels() -> None:
    registry = CollectorRegistry()
    HttpMetrics(registry).count("GET", "/healthz", 200)
    loop = asyncio.new_event_loop()
    register(registry, busy(), "1").watch(loop)
    rendered: dict[str, tuple[str, set[str]]] = {}
    for family in registry.collect():
        if family.name.startswith("twinspan_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            rendered[family.name + suffix] = (family.type, labels)
    loop.close()

    document = (Path(__file__).parents[3] / "docs/metrics.md").read_text(encoding="utf-8")
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(twinspan_\w+)` \| (\w+) \|([^|]*)\|", document, re.MULTILINE)
    }

    assert documented == rendered
