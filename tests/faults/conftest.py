"""Faults are met on the loop on which a gateway serves, and by one gateway, or two, for all of them."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from gateway.accounts import faults

# The bench's assertions say as much as the tests' own.
pytest.register_assert_rewrite("tests.faults.bench")

from tests.faults.bench import LONG_SECONDS, Bench, benches  # noqa: E402
from tests.faults.table import Fault  # noqa: E402


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Returns what makes the tests' event loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench_of(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[Fault], Bench]]:
    """Gives the bench on which a fault is."""
    async with benches(tmp_path_factory.mktemp("benches")) as started:
        gc.collect()
        gc.freeze()  # as a gateway does that serves: what is there from its start on is no garbage to look for
        try:
            yield started
        finally:
            gc.unfreeze()


@pytest.fixture(autouse=True)
def long_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the shortest time for which a target is left alone longer than any test."""
    monkeypatch.setitem(faults.RESTS, faults.Fault.RATE, replace(faults.RESTS[faults.Fault.RATE], seconds=LONG_SECONDS))
