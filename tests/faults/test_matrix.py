"""Every fault of the table, over every surface, with one model and with agents of every strategy."""

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from twinspan.v1 import annotations_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from tests.faults import table
from tests.faults.bench import BY_STRATEGY, DOWN, HASTY, HEALTHY, HOPELESS, RETRYING, Arrangement, Bench, Cell, bench, cells
from tests.faults.surfaces import Seen
from tests.faults.table import View

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_bench() -> AsyncIterator[Bench]:
    async with bench(HASTY, table.ALL) as started:
        yield started


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
    assert (seen.errors, seen.well_ended) == ([view.kind], True), seen
    assert seen.status == (200 if seen.code is None else table_status(view))
    assert 0 < len(seen.answer) < len(healthy.answer)
    assert seen.answer == healthy.answer[: len(seen.answer)]
    assert (seen.provider, seen.attempts) == (provider, "1")
    assert provider in seen.message or view.kind == "provider_error"


def table_status(view: View) -> int:
    return int(option(view.kind or "", annotations_pb2.http_status))


def code_of(kind: str) -> grpc.StatusCode:
    number = option(kind, annotations_pb2.grpc_code)
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def option(kind: str, extension: object) -> int:
    options = ErrorKind.DESCRIPTOR.values_by_name[f"ERROR_KIND_{kind.upper()}"].GetOptions()
    return int(options.Extensions[extension])


@pytest.mark.parametrize("cell", cells())
async def test_the_client_of_one_model_sees_the_answer_or_one_error(whole_bench: Bench, cell: Cell) -> None:
    view = cell.view
    healthy = await whole_bench.ask(cell, f"model-of-{HEALTHY}")
    seen = await whole_bench.ask(cell, cell.model, cell.token(None))
    if view.kind is None:
        assert_fine(seen, cell.provider, 1, healthy)
        assert_fine(await whole_bench.ask(cell, cell.model), cell.provider, 1, healthy)
    elif view.begun:
        assert_broken_off(seen, view, cell.provider, healthy)
    else:
        assert_error(seen, view.kind, view.status, 1)
    await whole_bench.nothing_is_left()
    await whole_bench.assert_settled(cell.token(None), answered=view.kind is None, begun=view.begun)


@pytest.mark.parametrize("arrangement", BY_STRATEGY, ids=lambda arrangement: arrangement.name)
@pytest.mark.parametrize("cell", cells())
async def test_an_agent_answers_from_its_next_target_and_passes_over_the_one_to_blame(
    whole_bench: Bench, cell: Cell, arrangement: Arrangement
) -> None:
    view, agent = cell.view, cell.agent(arrangement)
    healthy = await whole_bench.ask(cell, f"model-of-{HEALTHY}")
    seen = await whole_bench.ask(cell, agent, cell.token(arrangement))
    if view.kind is None:
        assert_fine(seen, cell.provider, 1, healthy)
    elif view.begun:
        assert_broken_off(seen, view, cell.provider, healthy)
    else:
        assert_fine(seen, HEALTHY, 2, healthy)
    await whole_bench.nothing_is_left()
    await whole_bench.assert_settled(cell.token(arrangement), answered=not view.begun, begun=view.begun)
    assert await whole_bench.passes_over(cell, agent) == view.blamed
    await whole_bench.nothing_is_left()


@pytest.mark.parametrize("cell", cells([fault for fault in table.ALL if fault.streamed.kind]))
async def test_when_all_targets_fail_there_is_one_error_that_names_each_attempt(whole_bench: Bench, cell: Cell) -> None:
    view = cell.view
    healthy = await whole_bench.ask(cell, f"model-of-{HEALTHY}")
    seen = await whole_bench.ask(cell, cell.agent(HOPELESS), cell.token(HOPELESS))
    if view.begun:
        assert_broken_off(seen, view, cell.provider, healthy)
    else:
        assert_error(seen, "targets_exhausted", 503, 2)
        assert f"{cell.provider}/{cell.model}: {view.kind} (" in seen.message
        assert f"{DOWN}/model-of-{DOWN}: provider_error (" in seen.message
    await whole_bench.nothing_is_left()
    await whole_bench.assert_settled(cell.token(HOPELESS), answered=False, begun=view.begun)


@pytest.mark.parametrize("cell", cells([fault for fault in table.ALL if fault.streamed.kind]))
async def test_a_target_is_tried_again_if_that_may_help(
    whole_bench: Bench, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.exchange.backoff_seconds", lambda _retry, retry_after, _randomness: retry_after or 0.0)
    view = cell.view
    healthy = await whole_bench.ask(cell, f"model-of-{HEALTHY}")
    seen = await whole_bench.ask(cell, cell.agent(RETRYING))
    if view.begun:
        assert_broken_off(seen, view, cell.provider, healthy)
    else:
        assert_fine(seen, HEALTHY, 3 if view.retried else 2, healthy)
    await whole_bench.nothing_is_left()
