import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1 import admin_pb2

from gateway.telemetry.recorder import Recorder
from gateway.telemetry.stats import percentile, stats
from tests.gateway.telemetry.busy import Clock, busy


def test_stats_show_the_counts_of_each_model_in_alphabetical_order() -> None:
    assert stats(busy(), "1.2.3") == admin_pb2.GetStatsResponse(
        version="1.2.3",
        uptime_seconds=4,
        inflight_requests=1,
        models=[
            admin_pb2.ModelStats(
                provider="local", model="smollm2", requests=1, input_tokens=1, output_tokens=2, unpriced_requests=1
            ),
            admin_pb2.ModelStats(
                agent="smart",
                provider="local",
                model="smollm2",
                requests=1,
                input_tokens=10,
                output_tokens=20,
                reasoning_tokens=5,
                cache_hit_tokens=4,
                cache_miss_tokens=6,
                cache_creation_tokens=3,
                latency_p50_seconds=1.5,
                latency_p95_seconds=1.5,
                latency_p99_seconds=1.5,
                cost_usd=0.5,
            ),
            admin_pb2.ModelStats(
                agent="smart",
                provider="xai",
                model="grok",
                requests=1,
                errors=1,
                latency_p50_seconds=1,
                latency_p95_seconds=1,
                latency_p99_seconds=1,
            ),
        ],
        errors={"cancelled": 1, "targets_exhausted": 1},
        totals=admin_pb2.TotalStats(
            requests=3,
            errors=1,
            input_tokens=11,
            output_tokens=22,
            reasoning_tokens=5,
            cache_hit_tokens=4,
            cache_miss_tokens=6,
            cache_creation_tokens=3,
        ),
        providers=[
            admin_pb2.ProviderStats(
                provider="local", state="healthy", requests=2, latency_p50_seconds=1.5, last_success_seconds_ago=1
            ),
            admin_pb2.ProviderStats(
                provider="xai",
                state="failing",
                requests=1,
                errors=1,
                recent_error_rate=1,
                last_error="rate_limited",
                last_error_seconds_ago=2.5,
            ),
        ],
        breakers=[
            admin_pb2.BreakerStats(
                agent="smart",
                provider="openai",
                model="gpt-5",
                state="open",
                failures=5,
                remaining_seconds=9.5,
                last_error="rate_limited",
            )
        ],
        billing=admin_pb2.BillingStats(
            cost_usd=0.5,
            cost_usd_by_provider={"local": 0.5, "xai": 0},
            unpriced_requests=1,
            providers=[admin_pb2.ProviderBilling(provider="openai", model="credit", spent_usd=1.5, credit_usd=10)],
        ),
        batches=admin_pb2.BatchStats(active=1, pending_requests=7, completed_requests=3, failed_requests=2),
        process=admin_pb2.ProcessStats(event_loop_lag_p50_seconds=0.002, event_loop_lag_p99_seconds=0.002),
    )


def test_an_empty_gateway_has_empty_stats() -> None:
    assert stats(Recorder(clock=Clock()), "1") == admin_pb2.GetStatsResponse(
        version="1",
        totals=admin_pb2.TotalStats(),
        billing=admin_pb2.BillingStats(),
        batches=admin_pb2.BatchStats(),
        process=admin_pb2.ProcessStats(),
    )


def test_requests_of_every_service_that_uses_models_are_under_way_and_looks_at_other_things_are_not() -> None:
    recorder = Recorder()
    for service in ("Chat", "Embeddings", "Images", "Proxy", "Rerank", "Admin", "Batches", "Files", "Models"):
        recorder.call(f"/twinspan.v1.{service}Service/Method")

    assert stats(recorder, "1").inflight_requests == 5


@pytest.mark.parametrize(
    ("outcomes", "state", "rate"),
    [
        ([], "unknown", 0),
        ([None], "healthy", 0),
        ([None] * 10 + ["network_error"], "healthy", 1 / 11),
        ([None] * 9 + ["network_error"], "degraded", 0.1),
        ([None, "provider_timeout"], "failing", 0.5),
        (["invalid_request", "cancelled", "context_exceeded"], "unknown", 0),
        (["provider_error"] * 100 + [None] * 100, "healthy", 0),
    ],
    ids=[
        "nobody asked",
        "it works",
        "a rare failure",
        "a tenth fails",
        "half fails",
        "nothing that is its fault",
        "it has recovered",
    ],
)
def test_a_provider_is_as_its_last_attempts_show(outcomes: list[str | None], state: str, rate: float) -> None:
    recorder = Recorder()
    recorder.attempt("", "acme", "m")
    for outcome in outcomes:
        recorder.attempt("", "acme", "m").end(outcome)

    (provider,) = stats(recorder, "1").providers
    assert (provider.state, provider.recent_error_rate) == (state, rate)


def test_errors_of_one_kind_are_added_up_over_providers() -> None:
    recorder = Recorder(clock=Clock())
    for provider in ("openai", "xai", "xai"):
        recorder.call("/a.B/C").end("UNAVAILABLE", error="network_error", provider=provider)

    assert stats(recorder, "1").errors == {"network_error": 3}


def test_percentiles_are_of_the_last_512_attempts() -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    for seconds in (*[1000] * 100, *range(1, 513)):
        attempt = recorder.attempt("", "local", "m")
        clock.now += seconds
        attempt.end()

    (model,) = stats(recorder, "1").models
    assert model.requests == 612
    assert (model.latency_p50_seconds, model.latency_p95_seconds, model.latency_p99_seconds) == (256, 487, 507)


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([], 0.5, 0), ([7], 0.01, 7), ([1, 2], 0.5, 1), ([1, 2], 0.51, 2), ([1, 2, 3, 4], 0.75, 3), ([1, 2, 3, 4], 1, 4)],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], fraction: float, expected: float) -> None:
    assert percentile(values, fraction) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_enough_values_do_not_exceed(values: list[float], fraction: float) -> None:
    ascending = sorted(values)

    found = percentile(ascending, fraction)

    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-9
    assert sum(value < found for value in values) < fraction * len(values)
