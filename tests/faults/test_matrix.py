"""Every fault of the table, over every surface at once, with one model and with agents of every strategy."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from twinspan.v1 import annotations_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from tests.faults import table
from tests.faults.bench import BY_STRATEGY, DOWN, HEALTHY, HOPELESS, PATIENT, RETRYING, Arrangement, Bench, Cell, cells
from tests.faults.surfaces import Seen
from tests.faults.table import Fault, View

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = pytest.mark.parametrize("fault", table.ALL, ids=lambda fault: fault.name)
TRUE_FAULTS = pytest.mark.parametrize(
    "fault", [fault for fault in table.ALL if fault.streamed.kind is not None], ids=lambda fault: fault.name
)


async def over_every_surface(fault: Fault, check: Callable[[Cell], Awaitable[None]]) -> None:
    """Checks all cells of a fault at once."""

    async def named(cell: Cell) -> None:
        try:
            await check(cell)
        except Exception as error:
            error.add_note(f"This was over {cell.surface.name}.")
            raise

    await asyncio.gather(*map(named, cells(fault)))


def assert_fine(seen: Seen, provider: str, attempts: int, healthy: Seen) -> None:
    """The answer is the one that there is without any fault."""
    assert (seen.errors, seen.status, seen.well_ended) == ([], 200, True), seen
    assert seen.answer == healthy.answer
    assert (seen.provider, seen.attempts) == (provider, str(attempts))


def assert_error(seen: Seen, kind: str, status: int, attempts: int) -> None:
    """There is one error, of this kind, and nothing else."""
    assert (seen.errors, seen.answer, seen.status, seen.well_ended) == ([kind], [], status, True), seen
    assert seen.code in {None, code_of(kind)}
    assert seen.attempts == str(attempts)


def assert_broken_off(seen: Seen, view: View, provider: str, healthy: Seen) -> None:
    """The answer begins as it should, and then there is one error in its place, and the end of the dialect."""
    assert view.kind is not None
    assert (seen.errors, seen.well_ended) == ([view.kind], True), seen
    assert (seen.code, seen.status) in {(None, 200), (code_of(view.kind), view.status)}
    assert 0 < len(seen.answer) < len(healthy.answer)
    assert seen.answer == healthy.answer[: len(seen.answer)]
    assert (seen.provider, seen.attempts) == (provider, "1")


def code_of(kind: str) -> grpc.StatusCode:
    """Returns the RPC status that the contract gives an error kind."""
    number = ErrorKind.DESCRIPTOR.values_by_name[f"ERROR_KIND_{kind.upper()}"].GetOptions().Extensions[annotations_pb2.grpc_code]
    return next(code for code in grpc.StatusCode if code.value[0] == number)


@ALL
async def test_the_client_of_one_model_sees_the_answer_or_one_error(bench_of: Callable[[Fault], Bench], fault: Fault) -> None:
    bench = bench_of(fault)

    async def check(cell: Cell) -> None:
        view, healthy = cell.view, await bench.healthy(cell)
        seen = await bench.ask(cell, cell.model, cell.token(None))
        if view.kind is None:
            assert_fine(seen, cell.provider, 1, healthy)
            assert_fine(await bench.ask(cell, cell.model), cell.provider, 1, healthy)
        elif view.begun:
            assert_broken_off(seen, view, cell.provider, healthy)
        else:
            assert_error(seen, view.kind, view.status, 1)
            if seen.status in {429, 503} and seen.code is None:
                assert seen.facts["retry-after"] == str(view.retry_after or 1)
        await bench.assert_settled(cell.token(None), answered_by="" if view.kind else cell.provider, begun=view.begun)

    await over_every_surface(fault, check)
    await bench.nothing_is_left()


@pytest.mark.parametrize("arrangement", BY_STRATEGY, ids=lambda arrangement: arrangement.name)
@ALL
async def test_an_agent_answers_from_its_next_target_and_passes_over_the_one_to_blame(
    bench_of: Callable[[Fault], Bench], fault: Fault, arrangement: Arrangement
) -> None:
    bench = bench_of(fault)

    async def check(cell: Cell) -> None:
        view, healthy = cell.view, await bench.healthy(cell)
        seen = await bench.ask(cell, cell.agent(arrangement), cell.token(arrangement))
        answered_by = cell.provider if view.kind is None else HEALTHY
        if view.begun:
            assert_broken_off(seen, view, cell.provider, healthy)
        else:
            assert_fine(seen, answered_by, 1 if answered_by == cell.provider else 2, healthy)
        await bench.assert_settled(cell.token(arrangement), answered_by="" if view.begun else answered_by, begun=view.begun)

    await over_every_surface(fault, check)
    breakers = await bench.breakers()

    async def check_breaker(cell: Cell) -> None:
        agent = cell.agent(arrangement)
        await bench.assert_breaker(cell, agent, breakers.get((agent, cell.provider)))

    await over_every_surface(fault, check_breaker)
    await bench.nothing_is_left()


@TRUE_FAULTS
async def test_when_all_targets_fail_there_is_one_error_that_names_each_attempt(
    bench_of: Callable[[Fault], Bench], fault: Fault
) -> None:
    bench = bench_of(fault)

    async def check(cell: Cell) -> None:
        view = cell.view
        seen = await bench.ask(cell, cell.agent(HOPELESS), cell.token(HOPELESS))
        if view.begun:
            assert_broken_off(seen, view, cell.provider, await bench.healthy(cell))
        else:
            assert_error(seen, "targets_exhausted", 503, 2)
            assert f"{cell.provider}/{cell.model}: {view.kind} (" in seen.message
            assert f"{DOWN}/model-of-{DOWN}: provider_error (" in seen.message
        await bench.assert_settled(cell.token(HOPELESS), answered_by="", begun=view.begun)

    await over_every_surface(fault, check)
    await bench.nothing_is_left()


@TRUE_FAULTS
async def test_the_first_failure_counts_or_opens_the_breaker_at_once_or_says_nothing_of_the_target(
    bench_of: Callable[[Fault], Bench], fault: Fault
) -> None:
    bench = bench_of(fault)

    async def ask(cell: Cell) -> None:
        await bench.ask(cell, cell.agent(PATIENT))

    await over_every_surface(fault, ask)
    breakers = await bench.breakers()

    async def check(cell: Cell) -> None:
        breaker = breakers.get((cell.agent(PATIENT), cell.provider))
        seen = breaker and (breaker.state, breaker.failures, breaker.last_error)
        view = cell.view
        assert seen == (("open" if view.held else "closed", 1, view.kind) if view.blamed else None)
        if breaker is not None and view.retry_after:
            assert view.retry_after - 60 < breaker.remaining_seconds <= view.retry_after

    await over_every_surface(fault, check)
    await bench.nothing_is_left()


@TRUE_FAULTS
async def test_a_target_is_tried_again_if_that_may_help(
    bench_of: Callable[[Fault], Bench], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pursuit.backoff_seconds", lambda _retry, retry_after, _randomness: retry_after or 0.0)
    bench = bench_of(fault)

    async def check(cell: Cell) -> None:
        view, healthy = cell.view, await bench.healthy(cell)
        seen = await bench.ask(cell, cell.agent(RETRYING))
        if view.begun:
            assert_broken_off(seen, view, cell.provider, healthy)
        else:
            assert_fine(seen, HEALTHY, 3 if view.retried else 2, healthy)

    await over_every_surface(fault, check)
    await bench.nothing_is_left()
