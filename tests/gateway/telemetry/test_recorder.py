from twinspan.v1.content_pb2 import Usage

from gateway.telemetry.recorder import Recorder
from tests.gateway.telemetry.busy import STREAM, Clock


def test_ending_twice_counts_once() -> None:
    recorder = Recorder(clock=Clock())
    call = recorder.call(STREAM)
    attempt = recorder.attempt("", "local", "m", call)
    for _ in range(2):
        attempt.end(usage=Usage(input_tokens=1))
        call.end("OK")

    attempt.chunk()
    attempt.end("provider_error")
    call.end("INTERNAL", error="internal_error")

    (target,) = recorder.targets.values()
    assert (target.attempts, target.errors, target.input_tokens, target.ttft.count) == (1, 0, 1, 0)
    (method,) = recorder.methods.values()
    assert (method.codes, method.inflight) == ({"OK": 1}, 0)
    assert recorder.errors.values == {}


def test_a_call_s_overhead_is_the_time_without_an_attempt() -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    call = recorder.call(STREAM)
    clock.now += 1
    for _ in range(2):
        attempt = recorder.attempt("", "local", "m", call)
        clock.now += 4
        attempt.end()
        clock.now += 0.5

    call.end("OK")

    assert attempt.seconds == 4
    assert call.upstream_seconds == 8
    assert recorder.methods[STREAM].overhead.sum == 2


def test_overlapping_attempts_leave_no_negative_overhead() -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    call = recorder.call(STREAM)
    attempts = [recorder.attempt("", "local", "m", call) for _ in range(2)]
    clock.now += 4
    for attempt in attempts:
        attempt.end()

    call.end("OK")

    assert recorder.methods[STREAM].overhead.sum == 0


def test_the_first_piece_gives_the_time_to_first_token_and_each_later_one_a_gap() -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    attempt = recorder.attempt("", "local", "m")
    for seconds in (2, 0.5, 0.25):
        clock.now += seconds
        attempt.chunk()

    (target,) = recorder.targets.values()
    assert (target.ttft.count, target.ttft.sum) == (1, 2)
    assert (target.inter_token.count, target.inter_token.sum) == (2, 0.75)


def test_usage_without_cache_figures_says_nothing_about_the_cache() -> None:
    recorder = Recorder()

    recorder.attempt("", "local", "m").end(usage=Usage(input_tokens=10))

    (target,) = recorder.targets.values()
    assert (target.cache_hit_tokens, target.cache_miss_tokens) == (0, 0)


def test_a_provider_that_says_it_cached_more_than_it_read_costs_no_negative_tokens() -> None:
    recorder = Recorder()

    recorder.attempt("", "local", "m").end(usage=Usage(input_tokens=10, cached_input_tokens=12))

    (target,) = recorder.targets.values()
    assert (target.cache_hit_tokens, target.cache_miss_tokens) == (12, 0)
