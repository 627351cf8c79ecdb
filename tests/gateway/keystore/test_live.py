import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access.keys import ApiKey, ConfiguredKeys, Principal, digest_of
from gateway.keystore import transactions
from gateway.keystore.live import LiveKeys
from gateway.keystore.records import By, StoredKey
from gateway.keystore.sqlite import SqliteDriver
from gateway.telemetry.recorder import Recorder

TOKEN, OTHER = "ts-a-token-of-the-tests", "ts-another-token-of-the-tests"
BY = By("client_token", 1_000)


class Live:
    """Live keys over a file, and what they told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recorder = Recorder()
        self.told: list[bool] = []
        self.keys = LiveKeys(SqliteDriver(path), ConfiguredKeys(), self.recorder, self._tell)

    async def _tell(self, works: bool) -> None:
        self.told.append(works)

    async def add(self, name: str, token: str) -> None:
        key = StoredKey(f"key_{name}", name)
        await self.keys.driver.write(transactions.add_key(key, digest_of(token).hex(), BY, frozenset()))

    def spoil(self, statement: str) -> None:
        with sqlite3.connect(self.path) as database:
            database.execute(statement)
            database.execute("UPDATE twinspan_revision SET revision = revision + 1")
        database.close()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    made = Live(tmp_path / "keys.db")
    yield made
    await made.keys.stop()


async def test_what_cannot_be_understood_leaves_the_keys_that_hold(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    await live.add("ann", TOKEN)
    await live.keys.refresh()
    live.spoil("UPDATE twinspan_keys SET roles = '{'")
    for _ in range(3):
        await live.keys.refresh()
        assert live.keys.ring.identify(TOKEN) is not None
    assert (live.told, live.recorder.key_store_failures) == ([True, False], 3)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    live.spoil("UPDATE twinspan_keys SET roles = '[\"admin\"]'")
    await live.keys.refresh()
    found = live.keys.ring.identify(TOKEN)
    assert found is not None
    assert found.roles == {"admin"}
    assert live.told == [True, False, True]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_configuration_that_is_reloaded_leaves_the_keys_of_the_store(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    await live.add("ann", TOKEN)
    await live.keys.refresh()
    for _ in range(2):
        live.keys.configure(ConfiguredKeys(api_keys=(ApiKey(OTHER, Principal("zoe")),)))
        assert [bool(live.keys.ring.identify(token)) for token in (TOKEN, OTHER)] == [True, True]
    for _ in range(2):
        live.keys.configure(ConfiguredKeys(api_keys=(ApiKey(OTHER, Principal("ann")),)))
        assert [bool(live.keys.ring.identify(token)) for token in (TOKEN, OTHER)] == [False, True]
    assert len(caplog.records) == 1  # of the key that does not count, and once alone
    live.keys.configure(ConfiguredKeys())
    assert [bool(live.keys.ring.identify(token)) for token in (TOKEN, OTHER)] == [True, False]


async def test_a_store_that_was_not_changed_is_not_read_again(live: Live) -> None:
    await live.add("ann", TOKEN)
    await live.keys.refresh()
    ring = live.keys.ring
    await live.keys.refresh()
    assert live.keys.ring is ring
    await live.add("zoe", OTHER)
    await live.keys.refresh()
    assert live.keys.ring is not ring
