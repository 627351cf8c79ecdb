"""A channel in this process, checked for leaks after each test."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.channel_harness import Harness, InProcess


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    harness = Harness(InProcess())
    yield harness
    await harness.close()
