"""The matrix's expectations: what each fault of a provider is to the client of one model, and to an agent's other targets.

This is the one place that says it. `tests.faults.test_matrix` runs every row over every surface and strategy, and
`tests.faults.document` writes `docs/faults.md` from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.faults import plays
from tests.faults.proxy import Play


@dataclass(frozen=True, slots=True)
class View:
    """What a fault is, in answers of one form.

    Attributes:
        kind: The error's kind; None if the answer is right nonetheless.
        status: The HTTP status of the error for the client of a single model, if nothing of the answer has left before.
        begun: Whether a part of the answer has reached the client before, so that the error follows it and nobody else is asked.
        retried: Whether the same target is asked again, where `max_retries` allows it.
        blamed: Whether it counts as a failure of the target.
        held: Whether it opens the target's breaker at once, however many failures that takes else.
        retry_after: How many seconds the provider asks to wait, as the client is told.
    """

    kind: str | None
    status: int = 200
    begun: bool = False
    retried: bool = False
    blamed: bool = False
    held: bool = False
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What a provider does, and what comes of it.

    Attributes:
        name: What it does, in words.
        play: How; None for a port on which nobody listens.
        streamed: What that is where a stream was asked for.
        whole: What that is where a whole answer was asked for; None if there it is no fault of its own.
    """

    name: str
    play: Play | None
    streamed: View
    whole: View | None


FINE = View(None)
UNREACHABLE = View("network_error", 502, retried=True, blamed=True)
WRONG = View("provider_error", 502, retried=True, blamed=True)
LATE = View("provider_timeout", 504, retried=True, blamed=True)
BUSY = View("rate_limited", 429, retried=True, blamed=True, held=True)
BUSY_FOR_LONG = View("rate_limited", 429, blamed=True, held=True, retry_after=3600)
LOCKED = View("auth_failed", 401, blamed=True, held=True)
TOO_LONG = View("context_exceeded", 400)
NOT_THERE = View("not_found", 404)


def _in_band(whole: View) -> View:
    return replace(whole, begun=True)


ALL = (
    Fault("does nothing wrong", plays.passes, FINE, FINE),
    Fault("refuses the connection", None, UNREACHABLE, UNREACHABLE),
    Fault("resets the connection at once", plays.resets_at_once, UNREACHABLE, UNREACHABLE),
    Fault("resets it after the request's head", plays.resets_after_the_head, UNREACHABLE, UNREACHABLE),
    Fault("resets it after the request", plays.resets_after_the_request, UNREACHABLE, UNREACHABLE),
    Fault("resets it after its headers", plays.resets_after_its_headers, UNREACHABLE, UNREACHABLE),
    Fault("resets it in the body, before the first event", plays.resets_before_the_first_event, UNREACHABLE, UNREACHABLE),
    Fault("resets it after the first event", plays.resets_after_the_first_event, _in_band(UNREACHABLE), UNREACHABLE),
    Fault("resets it right behind the first event", plays.resets_right_behind_the_first_event, _in_band(UNREACHABLE), None),
    Fault("accepts and says nothing", plays.hangs_at_once, LATE, LATE),
    Fault("says nothing after its headers", plays.hangs_after_its_headers, LATE, LATE),
    Fault("says nothing in the body, before the first event", plays.hangs_before_the_first_event, LATE, LATE),
    Fault("says nothing after the first event", plays.hangs_after_the_first_event, _in_band(LATE), LATE),
    Fault("sends one byte at a time", plays.sends_byte_by_byte, FINE, FINE),
    Fault("speaks no HTTP", plays.speaks_no_http, UNREACHABLE, UNREACHABLE),
    Fault("sends an event that is no JSON first", plays.sends_garbage_before_the_first_event, WRONG, WRONG),
    Fault("sends an event that is no JSON later", plays.sends_garbage_after_the_first_event, _in_band(WRONG), None),
    Fault("sends an error as an event later", plays.sends_an_error_after_the_first_event, _in_band(WRONG), None),
    Fault("answers 200 with a page", plays.answers_200_with_a_page, WRONG, WRONG),
    Fault("packs its answer in gzip, unasked", plays.is_packed_well, FINE, FINE),
    Fault("cuts its gzip off", plays.cuts_its_gzip_off, WRONG, WRONG),
    Fault("cuts its gzip off later", plays.cuts_its_gzip_off_after_the_first_event, _in_band(WRONG), None),
    Fault("sends less than its Content-Length", plays.sends_less_than_its_length, UNREACHABLE, UNREACHABLE),
    Fault(
        "sends less than its Content-Length, but some events",
        plays.sends_less_than_its_length_after_the_first_event,
        _in_band(UNREACHABLE),
        None,
    ),
    Fault("sends more than its Content-Length", plays.sends_more_than_its_length, UNREACHABLE, UNREACHABLE),
    Fault(
        "sends more than its Content-Length, but some events in it",
        plays.sends_more_than_its_length_after_the_first_event,
        _in_band(WRONG),
        None,
    ),
    Fault("half-closes before it answers", plays.half_closes_before_it_answers, UNREACHABLE, UNREACHABLE),
    Fault("half-closes after its headers", plays.half_closes_after_its_headers, UNREACHABLE, UNREACHABLE),
    Fault("half-closes after the first event", plays.half_closes_after_the_first_event, _in_band(UNREACHABLE), UNREACHABLE),
    Fault(
        "ends an answer without a length early",
        plays.ends_an_unframed_answer_early,
        _in_band(UNREACHABLE),
        None,
    ),
    Fault("answers 200 with nothing", plays.says_nothing_and_is_done, WRONG, WRONG),
    Fault("answers 200 with `[DONE]` alone", plays.says_done_and_nothing_else, WRONG, None),
    Fault("closes a connection that was kept, when it is used again", plays.is_gone_when_it_is_asked_again, FINE, FINE),
    Fault("answers 429", plays.refuses("429 Too Many Requests", plays.SLOW_DOWN), BUSY, BUSY),
    Fault(
        "answers 429 with Retry-After: 3600",
        plays.refuses("429 Too Many Requests", plays.SLOW_DOWN, Retry_After="3600"),
        BUSY_FOR_LONG,
        BUSY_FOR_LONG,
    ),
    Fault(
        "answers 429 with retry-after-ms: 3600000",
        plays.refuses("429 Too Many Requests", plays.SLOW_DOWN, retry_after_ms="3600000"),
        BUSY_FOR_LONG,
        BUSY_FOR_LONG,
    ),
    Fault("answers 500 with a page", plays.refuses("500 Internal Server Error", plays.PAGE), WRONG, WRONG),
    Fault("answers 502 with a page", plays.refuses("502 Bad Gateway", plays.PAGE), WRONG, WRONG),
    Fault("answers 503 with a page", plays.refuses("503 Service Unavailable", plays.PAGE), WRONG, WRONG),
    Fault("answers 401", plays.refuses("401 Unauthorized", plays.WRONG_KEY), LOCKED, LOCKED),
    Fault("answers 404", plays.refuses("404 Not Found", plays.NO_SUCH_URL), NOT_THERE, NOT_THERE),
    Fault("answers 400, the context is too long", plays.refuses("400 Bad Request", plays.CONTEXT_TOO_LONG), TOO_LONG, TOO_LONG),
)
"""Every fault that is the same each time, and what comes of it."""

FLAPPING = Fault("answers 503 to every other request", plays.every_other_time(plays.refuses("503 Busy", plays.PAGE)), WRONG, WRONG)
STORMS = tuple(fault for fault in ALL if fault.streamed.kind == "rate_limited")
BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in (*ALL, FLAPPING)}
