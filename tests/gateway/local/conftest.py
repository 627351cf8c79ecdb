"""One running engine for a whole module, since each start takes half a second."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from gateway.local.engine import LocalEndpoint, LocalEngine
from tests.gateway.local.watching import client_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint() -> AsyncIterator[LocalEndpoint]:
    engine = LocalEngine()
    yield await engine.start()
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(endpoint: LocalEndpoint) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(endpoint) as made:
        yield made
