"""A recorder that has counted a bit of everything, on a clock that the test sets."""

from twinspan.v1.content_pb2 import Usage

from gateway.telemetry.conditions import BillingCondition, BreakerCondition, Conditions
from gateway.telemetry.recorder import Recorder

STREAM = "/twinspan.v1.ChatService/Stream"
STATS = "/twinspan.v1.AdminService/GetStats"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Clock:
    """Seconds that rise when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def busy() -> Recorder:
    """Returns a recorder that has seen a chat of 4 s, refused once and then streamed, one still under way, and one of all else."""
    clock = Clock()
    recorder = Recorder(clock=clock)
    recorder.call(STREAM)
    call = recorder.call(STREAM)
    clock.now += 0.5
    refused = recorder.attempt("smart", "xai", "grok", call)
    clock.now += 1.0
    refused.end("rate_limited")
    recorder.retried()
    attempt = recorder.attempt("smart", "local", "smollm2", call)
    clock.now += 1.0
    attempt.chunk(TRACE)
    clock.now += 0.25
    attempt.chunk()
    clock.now += 0.25
    attempt.chunk()
    usage = Usage(input_tokens=10, output_tokens=20, reasoning_tokens=5, cached_input_tokens=4, cache_creation_input_tokens=3)
    attempt.end(usage=usage, cost_usd=0.5, trace_id=TRACE)
    clock.now += 1.0
    call.end("OK", trace_id=TRACE)
    gone = recorder.call(STREAM)
    left = recorder.attempt("", "local", "smollm2", gone)
    left.end("cancelled", usage=Usage(input_tokens=1, output_tokens=2))
    gone.end("CANCELLED", error="cancelled")
    failed = recorder.call(STREAM)
    failed.end("UNAVAILABLE", error="targets_exhausted", provider="xai")
    recorder.call(STATS).end("OK")
    recorder.panicked()
    recorder.stream_interrupted("provider_timeout")
    recorder.stream_stalled()
    recorder.stream_empty()
    recorder.target_cooled_down()
    recorder.targets_exhausted()
    recorder.authenticated()
    recorder.auth_failed("missing")
    recorder.auth_denied("role")
    recorder.loop_was_late(0.002)
    recorder.body_forwarded("sent", 100, "xai")
    recorder.body_forwarded("received", 1000, "xai")
    recorder.batches.active, recorder.batches.pending = 1, 7
    recorder.batches.completed, recorder.batches.failed = 3, 2
    recorder.models_discovered("openai", "ok")
    recorder.rate_limited("key", "requests")
    recorder.budget_exceeded("team")
    recorder.session_moved("failure")
    recorder.breaker_moved(1)
    recorder.hedged()
    recorder.summarised()
    recorder.account_selected("openai", "team-a", "ok")
    conditions = Conditions(
        breakers=[BreakerCondition("smart", "openai", "gpt-5", 1, 5, 9.5, "rate_limited")],
        billing=[BillingCondition("openai", "credit", 1.5, 10.0, None, None, exhausted=False, remaining_seconds=0.0)],
        hosts=[("api.openai.com", "requests", 14), ("api.openai.com", "tokens", 900)],
        sessions=2,
    )
    recorder.conditions = lambda: conditions
    recorder.store_failed()
    recorder.key_store_failed()
    return recorder
