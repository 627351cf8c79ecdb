"""Faults over time: storms of 429, and a provider that fails every other time."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.routing.breaker import PROBES
from tests.faults import table
from tests.faults.bench import BY_STRATEGY, HEALTHY, STORMY, Bench, Cell
from tests.faults.surfaces import SURFACES, Surface
from tests.faults.table import Fault

pytestmark = pytest.mark.asyncio(loop_scope="module")

EACH_STORM = pytest.mark.parametrize("fault", table.STORMS, ids=lambda fault: fault.name)
EACH_SURFACE = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)


@EACH_STORM
@EACH_SURFACE
async def test_in_a_storm_of_429_an_agent_asks_once_and_leaves_the_target_alone(
    bench_of: Callable[[Fault], Bench], fault: Fault, surface: Surface
) -> None:
    bench, cell = bench_of(fault), Cell(fault, surface)
    agent, proxy = cell.agent(STORMY), bench.proxies[cell.provider]
    before = proxy.requests
    seen = await bench.ask(cell, agent)
    assert (seen.errors, seen.provider, seen.attempts) == ([], HEALTHY, "2")
    for answer in await asyncio.gather(*(bench.ask(cell, agent) for _ in range(20))):
        assert (answer.errors, answer.provider, answer.attempts) == ([], HEALTHY, "1")
    assert proxy.requests - before == 1
    await bench.nothing_is_left()


@EACH_STORM
async def test_in_a_storm_of_429_each_client_of_one_model_is_told_so_and_a_provider_that_asked_to_wait_is_left_alone(
    bench_of: Callable[[Fault], Bench], fault: Fault
) -> None:
    bench, proxy = bench_of(fault), bench_of(fault).proxies[Cell(fault, SURFACES[0]).provider]
    every = [Cell(fault, surface) for surface in SURFACES]
    for cell in every:
        assert (await bench.ask(cell, cell.model)).errors == ["rate_limited"]
    before, wait = proxy.requests, every[0].view.retry_after
    for seen in await asyncio.gather(*(bench.ask(cell, cell.model) for cell in every * 5)):
        assert (seen.status, seen.errors) == (429, ["rate_limited"])
        if seen.code is None:
            assert 0 < int(seen.facts["retry-after"]) <= (wait or 1)
    if wait:
        assert proxy.requests == before
    else:  # there is nothing else to try, so some find out whether the wait was needed, a few at a time
        assert PROBES * len(every) <= proxy.requests - before <= 5 * len(every)
    await bench.nothing_is_left()


@EACH_SURFACE
async def test_a_provider_that_fails_every_other_time_is_asked_on_since_each_success_forgets_the_failure(
    bench_of: Callable[[Fault], Bench], surface: Surface
) -> None:
    bench, cell = bench_of(table.FLAPPING), Cell(table.FLAPPING, surface)
    seen = [await bench.ask(cell, cell.agent(STORMY)) for _ in range(4 * STORMY.failure_threshold)]
    assert [answer.errors for answer in seen] == [[]] * len(seen)
    assert [(answer.provider, answer.attempts) for answer in seen] == [(HEALTHY, "2"), (cell.provider, "1")] * (len(seen) // 2)
    assert (cell.agent(STORMY), cell.provider) not in await bench.breakers()
    await bench.nothing_is_left()


@EACH_SURFACE
async def test_the_client_of_one_model_that_fails_every_other_time_sees_that(
    bench_of: Callable[[Fault], Bench], surface: Surface
) -> None:
    bench, cell = bench_of(table.FLAPPING), Cell(table.FLAPPING, surface)
    seen = [await bench.ask(cell, cell.model, cell.token(None)) for _ in range(4)]
    assert [answer.errors for answer in seen] == [["provider_error"], []] * 2
    await bench.nothing_is_left()


async def test_the_metric_of_breakers_says_what_the_statistics_say(bench_of: Callable[[Fault], Bench]) -> None:
    fault = table.BY_NAME["answers 500 with a page"]
    bench, cell = bench_of(fault), Cell(fault, SURFACES[0])
    agent = cell.agent(BY_STRATEGY[0])
    await bench.ask(cell, agent)
    breaker = (await bench.breakers())[agent, cell.provider]
    metrics = (await bench.twinspan.rest.get("/metrics")).text
    assert breaker.state == "open"
    assert f'twinspan_cb_state{{key="{agent}/{cell.provider}/{cell.model}"}} 1.0\n' in metrics
