import time
from collections import deque

import pytest
from prometheus_client import CollectorRegistry

from gateway.siblings import Gathered, Standing
from gateway.telemetry.conditions import BreakerCondition, Conditions
from gateway.telemetry.counts import BatchCounts, LabelCounts, MethodCounts, ProviderCounts, TargetCounts
from gateway.telemetry.histogram import Histogram
from gateway.telemetry.metrics import register_all, render
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.report import report
from gateway.telemetry.stats import stats
from gateway.telemetry.totals import laid_down, total
from tests.gateway.telemetry.busy import STREAM, busy

PROCESS = {"resident_memory_bytes": 10.0, "cpu_seconds_total": 2.0, "start_time_seconds": 5.0, "asyncio_tasks": 4.0}


def shown(recorder: Recorder) -> object:
    """Returns what a recorder shows of its counts, but for the time."""
    found = stats(recorder, "1.2.3")
    found.uptime_seconds = 0
    for provider in found.providers:
        provider.ClearField("last_error_seconds_ago")
        provider.ClearField("last_success_seconds_ago")
    return found


def samples(*reports: bytes) -> dict[str, float]:
    """Returns every sample of the metrics of reports."""
    registry = CollectorRegistry()
    register_all(registry, Gathered(reports, Standing(time.time(), 2)), "1.2.3")
    lines = [line.rpartition(" ") for line in render(registry, "")[0].decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def told(conditions: Conditions) -> bytes:
    recorder = Recorder()
    recorder.conditions = lambda: conditions
    return report(recorder, {})


def test_the_sum_of_one_is_that_one() -> None:
    recorder = busy()
    assert shown(total([report(recorder, {})], 0.0).recorder) == shown(recorder)


def test_every_kind_of_count_is_told() -> None:
    """A recorder that gets a new attribute of another kind needs a word in `gateway.telemetry.report`."""
    kinds = {type(value) for name, value in vars(busy()).items() if not name.startswith("_") and not callable(value)}
    assert kinds == {float, int, dict, deque, Histogram, LabelCounts, BatchCounts}
    tables = {type(value) for table in vars(busy()).values() if isinstance(table, dict) for value in table.values()}
    assert tables == {MethodCounts, TargetCounts, ProviderCounts}


def test_of_several_everything_is_added_up() -> None:
    once, twice = samples(report(busy(), PROCESS)), samples(report(busy(), PROCESS), report(busy(), PROCESS))
    alike = {
        "twinspan_build_info",
        "twinspan_uptime_seconds",
        "twinspan_workers",
        "process_start_time_seconds",
        # What stands for all of them is what stands for the one for which it stands worst.
        "twinspan_billing_spend_usd",
        "twinspan_cb_state",
        "twinspan_ratelimit_rpm_available",
        "twinspan_ratelimit_tpm_available",
    }
    for name, value in once.items():
        if name.partition("{")[0] not in alike:
            assert twice[name] == pytest.approx(2 * value), name
    assert twice["process_start_time_seconds"] == 5
    assert twice["twinspan_asyncio_tasks"] == 8


def test_exemplars_percentiles_and_the_last_error_come_through() -> None:
    sums = total([report(busy(), {}), report(busy(), {})], 0.0).recorder
    target = sums.targets["smart", "local", "smollm2"]
    assert len(target.ttft.exemplars) == 1
    assert list(target.recent) == [1.5, 1.5]
    assert sums.providers["xai"].last_error == "rate_limited"
    assert abs(sums.clock() - sums.providers["xai"].last_error_at - 4.0) < 3.5  # by the wall clock
    assert list(total([report(busy(), {}, samples=False)], 0.0).recorder.targets["smart", "local", "smollm2"].recent) == []


def test_what_has_ended_counts_on_but_does_not_stand_any_more() -> None:
    before = samples(report(busy(), PROCESS))
    ended = laid_down([laid_down([report(busy(), PROCESS)])])
    after = samples(ended)
    falling = [name for name, value in before.items() if after.get(name, 0) < value and name != "twinspan_uptime_seconds"]
    assert {name.partition("{")[0] for name in falling} == {
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "twinspan_asyncio_tasks",
        "twinspan_batch_lines_pending",
        "twinspan_batches_active",
        "twinspan_billing_spend_usd",
        "twinspan_cb_state",
        "twinspan_ratelimit_rpm_available",
        "twinspan_ratelimit_tpm_available",
        "twinspan_session_active",
        "twinspan_inflight_requests",
    }
    both = total([ended, report(busy(), PROCESS)], 0.0)
    assert both.recorder.methods[STREAM].inflight == 1
    assert both.process["cpu_seconds_total"] == 4


def test_of_a_target_that_several_pass_over_the_longest_time_counts() -> None:
    breakers = [BreakerCondition("smart", "xai", "grok", 1, 5, seconds, "rate_limited") for seconds in (3.0, 9.0)]
    closed = BreakerCondition("smart", "xai", "grok", 0)
    several = [
        Conditions([breaker], hosts=[("x.ai", "requests", left)], sessions=2) for left, breaker in enumerate([closed, *breakers])
    ]
    reports = [told(conditions) for conditions in several]
    assert total(reports, 0.0).recorder.conditions() == Conditions([breakers[1]], hosts=[("x.ai", "requests", 0)], sessions=6)
