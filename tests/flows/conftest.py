"""What nearly every flow needs: a provider, and a gateway over it."""

from collections.abc import AsyncIterator

import pytest

from tests.flows.running import Running, running_over
from tests.flows.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as started:
        yield started


@pytest.fixture
async def twinspan(upstream: Upstream) -> AsyncIterator[Running]:
    async with running_over(upstream) as started:
        yield started
