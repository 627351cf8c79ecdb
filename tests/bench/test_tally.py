import os

import pytest

from bench.phase import Phase, Spread
from bench.tally import Tally

STREAMS = Phase(port=1, model="bench-stream-10", kind="small", chunks=10, connections=1)


def test_only_what_ends_while_it_is_measured_counts() -> None:
    tally = Tally(STREAMS)

    tally.success(9.0, 9.0)
    tally.start()
    tally.success(0.2, 0.1, messages=3)
    tally.stop()
    tally.success(9.0, 9.0)

    outcome = tally.outcome()
    assert (outcome.responses, outcome.chunks, outcome.messages) == (1, 10, 3)
    assert outcome.latency == Spread(200.0, 200.0, 200.0, 200.0)
    assert outcome.first == Spread(100.0, 100.0, 100.0, 100.0)


def test_failures_count_whenever_they_happen() -> None:
    tally = Tally(STREAMS)

    tally.failure("status 500")
    tally.start()
    tally.failure("status 500")
    tally.stop()
    tally.failure("the stream has no end")

    assert tally.failed == 3
    assert tally.outcome().failures == {"status 500": 2, "the stream has no end": 1}


def test_the_gateways_cpu_and_memory_are_told_beside_those_of_other_processes() -> None:
    watched = Phase(port=1, model="m", kind="small", connections=1, gateway_pid=os.getpid(), other_pids={"mock": os.getpid()})
    tally = Tally(watched)

    tally.start()
    tally.stop()

    outcome = tally.outcome()
    assert set(outcome.cpu_seconds) == {"load", "gateway", "mock"}
    assert outcome.rss_peak >= outcome.pss_peak > 1_000_000


def test_a_gateway_that_is_gone_is_no_gateway_that_costs_nothing() -> None:
    gone = Phase(port=1, model="m", kind="small", connections=1, gateway_pid=2**22 + 1)

    with pytest.raises(ProcessLookupError):
        Tally(gone).start()


def test_the_most_streams_that_were_open_at_once_are_remembered() -> None:
    tally = Tally(STREAMS)

    tally.start()
    tally.opened()
    tally.opened()
    tally.closed()
    tally.opened()
    tally.closed()
    tally.closed()
    tally.stop()

    assert tally.outcome().most_open == 2
