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
            admin_pb2.ModelStats(provider="local", model="smollm2", requests=1, input_tokens=1, output_tokens=2),
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
    )


def test_an_empty_gateway_has_empty_stats() -> None:
    assert stats(Recorder(clock=Clock()), "1") == admin_pb2.GetStatsResponse(version="1")


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
