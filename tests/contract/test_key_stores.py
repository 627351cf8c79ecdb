"""One suite for every key store: a SQLite file and a real PostgreSQL database, each with several clients."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import Allowance, digest_of
from gateway.errors import GatewayError
from gateway.keystore import transactions
from gateway.keystore.driver import Driver, KeyStoreError
from gateway.keystore.opening import make_driver
from gateway.keystore.postgresql import PostgresqlDriver
from gateway.keystore.records import AuditEvent, By, Contents, StoredKey, StoredTeam, StoredToken
from gateway.keystore.sqlite import SqliteDriver
from tests.postgresql import PostgresqlServer

BY = By("client_token", 1_000)
DIGEST, OTHER_DIGEST, THIRD_DIGEST = (digest_of(token).hex() for token in ("ts-one", "ts-two", "ts-three"))
NO_TEAMS: frozenset[str] = frozenset()
NEWEST = 2**63 - 1
DATABASES = count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Driver, ...]]:
    """Gives several clients of one empty store."""
    if request.param == "sqlite":
        url = "sqlite://"
    else:
        server: PostgresqlServer = request.getfixturevalue("server")
        name = f"keys{next(DATABASES)}"
        server.sql(f"CREATE DATABASE {name}")
        url = server.url(name)
    made = tuple(make_driver(url, tmp_path / "state") for _ in range(3))
    yield made
    for store in made:
        await store.close()


@pytest.fixture
def store(stores: tuple[Driver, ...]) -> Driver:
    return stores[0]


def key(number: int = 1, **fields: Any) -> StoredKey:
    return StoredKey(
        f"key_{number:032x}", fields.pop("name", f"key-{number}"), created_at=1_000, created_by="client_token", **fields
    )


async def added(store: Driver, one: StoredKey, digest: str = DIGEST) -> StoredKey:
    await store.write(transactions.add_key(one, digest, BY, NO_TEAMS))
    return one


async def changed(store: Driver, name: str, **fields: Any) -> StoredKey:
    return await store.write(
        transactions.change_key(name, "key.update", lambda it: dataclasses.replace(it, **fields), BY, NO_TEAMS)
    )


async def contents_of(store: Driver) -> Contents:
    return (await store.read(transactions.contents())).read()


async def events(store: Driver, before: int = NEWEST, limit: int = 100) -> list[AuditEvent]:
    return await store.read(transactions.list_events(before, limit))


def kind(raised: pytest.ExceptionInfo[GatewayError]) -> str:
    return raised.value.kind_name


async def test_a_store_that_nobody_has_changed_is_empty(stores: tuple[Driver, ...], tmp_path: Path) -> None:
    for store in stores:
        assert await contents_of(store) == Contents(0, [], [], [])
        assert await store.read(transactions.find_key("ann")) is None
        assert await events(store) == []
    assert not (tmp_path / "state").exists()  # the file is made by the first change


async def test_a_key_is_kept_whole_and_every_client_finds_it(stores: tuple[Driver, ...]) -> None:
    first, *others = stores
    whole = key(
        roles=("admin", "read-only"),
        allowed_agents=("a'b\"c", "\x00\U0001f642", "?1 $1"),
        allowed_endpoints=("GET /v1/*",),
        expires_at=253_402_300_799,
        enabled=False,
        allowance=Allowance(2**63 - 1, 0, 7, 0.1, "week"),
        revoked_at=None,
    )
    await added(first, whole)
    for store in others:
        assert await store.read(transactions.find_key(whole.id)) == whole
        assert await store.read(transactions.find_key(whole.name)) == whole
        assert await contents_of(store) == Contents(1, [whole], [StoredToken(DIGEST, whole.id)], [])


async def test_of_many_that_want_a_name_at_once_one_gets_it(stores: tuple[Driver, ...]) -> None:
    attempts = [
        stores[number % len(stores)].write(
            transactions.add_key(key(number, name="ann"), digest_of(str(number)).hex(), BY, NO_TEAMS)
        )
        for number in range(12)
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, GatewayError)]
    assert len(refused) == 11
    assert {(error.kind_name, error.param) for error in refused} == {("conflict", "name")}
    contents = await contents_of(stores[0])
    assert (contents.revision, len(contents.keys), len(contents.tokens)) == (1, 1, 1)
    assert len(await events(stores[0])) == 1


async def test_of_changes_at_once_none_is_lost(stores: tuple[Driver, ...]) -> None:
    await added(stores[0], key(allowance=Allowance(rpm=0)))

    def more(it: StoredKey) -> StoredKey:
        return dataclasses.replace(it, allowance=dataclasses.replace(it.allowance, rpm=(it.allowance.rpm or 0) + 1))

    changes = [
        stores[number % len(stores)].write(transactions.change_key("key-1", "key.update", more, BY, NO_TEAMS))
        for number in range(24)
    ]
    seen = await asyncio.gather(*changes)
    assert sorted(it.allowance.rpm or 0 for it in seen) == list(range(1, 25))
    assert await stores[0].read(transactions.revision()) == 25
    assert [event.id for event in await events(stores[-1])] == list(range(25, 0, -1))


async def test_a_change_that_fails_leaves_nothing(store: Driver) -> None:
    one = await added(store, key())

    def refuse(_: StoredKey) -> StoredKey:
        raise GatewayError(ErrorKind.ERROR_KIND_CONFLICT, "No.")

    with pytest.raises(GatewayError, match=r"No\."):
        await store.write(transactions.change_key("key-1", "key.update", refuse, BY, NO_TEAMS))
    with pytest.raises(GatewayError) as raised:
        await changed(store, "nobody", enabled=False)
    assert kind(raised) == "not_found"
    with pytest.raises(GatewayError) as raised:
        await store.write(transactions.add_key(key(2, team="gone"), OTHER_DIGEST, BY, NO_TEAMS))
    assert (kind(raised), raised.value.param) == ("invalid_request", "team")
    assert await contents_of(store) == Contents(1, [one], [StoredToken(DIGEST, one.id)], [])
    assert len(await events(store)) == 1


async def test_a_change_of_nothing_is_no_event(store: Driver) -> None:
    await added(store, key())
    assert (await changed(store, "key-1", enabled=True)).enabled
    assert len(await events(store)) == 1


async def test_each_rotation_leaves_the_tokens_before_it_no_more_than_its_overlap(store: Driver) -> None:
    one = await added(store, key())

    async def rotated(digest: str, overlap: int, at: int) -> dict[str, int | None]:
        by = By("client_token", at)
        assert await store.write(transactions.rotate_key("key-1", digest, overlap, lambda _: None, by)) == one
        return {token.digest: token.valid_until for token in (await contents_of(store)).tokens}

    assert await rotated(OTHER_DIGEST, 600, 2_000) == {DIGEST: 2_600, OTHER_DIGEST: None}
    assert await rotated(THIRD_DIGEST, 3_600, 2_500) == {DIGEST: 2_600, OTHER_DIGEST: 6_100, THIRD_DIGEST: None}
    # What is over is forgotten, and what is not ends at once where no overlap is asked for.
    assert await rotated("44" * 32, 0, 3_000) == {OTHER_DIGEST: 3_000, THIRD_DIGEST: 3_000, "44" * 32: None}


async def test_a_team_is_deleted_once_no_key_belongs_to_it(stores: tuple[Driver, ...]) -> None:
    first, second, _ = stores
    team = StoredTeam("research", Allowance(rpm=5, budget_usd=2.5, budget_period="month"), 1_000, "client_token")
    await first.write(transactions.add_team(team, BY))
    with pytest.raises(GatewayError) as raised:
        await second.write(transactions.add_team(team, BY))
    assert (kind(raised), raised.value.param) == ("conflict", "name")
    member = await added(second, key(team="research"))
    assert await first.read(transactions.list_teams()) == [team]
    with pytest.raises(GatewayError, match="'key-1'") as raised:
        await first.write(transactions.delete_team("research", BY))
    assert kind(raised) == "conflict"
    await changed(second, member.id, revoked_at=2_000)
    await first.write(transactions.delete_team("research", BY))
    assert await second.read(transactions.list_teams()) == []
    for change in (transactions.delete_team("research", BY), transactions.change_team("research", lambda it: it, BY)):
        with pytest.raises(GatewayError) as raised:
            await first.write(change)
        assert kind(raised) == "not_found"


async def test_a_team_is_changed(store: Driver) -> None:
    await store.write(transactions.add_team(StoredTeam("research"), BY))
    wanted = Allowance(1, 2, 3, 4.5, "day")
    team = await store.write(transactions.change_team("research", lambda it: dataclasses.replace(it, allowance=wanted), BY))
    assert team == StoredTeam("research", wanted, BY.at, BY.actor)
    assert await store.read(transactions.list_teams()) == [team]


async def test_a_key_may_belong_to_a_team_that_is_not_the_stores(store: Driver) -> None:
    one = key(team="configured")
    await store.write(transactions.add_key(one, DIGEST, BY, frozenset({"configured"})))
    assert (await contents_of(store)).keys == [one]


async def test_keys_come_in_pages_the_newest_first(store: Driver) -> None:
    keys = [await added(store, key(number), f"{number:064x}") for number in range(5)]
    pages, before = [], ""
    while page := await store.read(transactions.list_keys(before, 2)):
        pages.append(page)
        before = page[-1].id
    assert pages == [[keys[4], keys[3]], [keys[2], keys[1]], [keys[0]]]


async def test_the_log_tells_who_did_what_and_no_secret(store: Driver) -> None:
    await store.write(transactions.add_team(StoredTeam("research", Allowance(tpm=7)), BY))
    await added(store, key(roles=("admin",), team="research"))
    await changed(store, "key-1", team="", enabled=False, allowance=Allowance(rpm=5))
    await store.write(transactions.rotate_key("key-1", OTHER_DIGEST, 0, lambda _: None, By("ann", 2_000)))
    logged = [
        AuditEvent(4, 2_000, "ann", "key.rotate", "key-1", ("token",)),
        AuditEvent(3, 1_000, "client_token", "key.update", "key-1", ("enabled", "team", "rpm")),
        AuditEvent(2, 1_000, "client_token", "key.create", "key-1", ("roles", "team")),
        AuditEvent(1, 1_000, "client_token", "team.create", "research", ("tpm",)),
    ]
    assert await events(store) == logged
    assert await events(store, before=3, limit=1) == logged[2:3]
    assert not any(digest in repr(logged) for digest in (DIGEST, OTHER_DIGEST))


async def test_a_reader_sees_the_store_as_it_was_at_one_time(stores: tuple[Driver, ...]) -> None:
    first, second, _ = stores
    await added(first, key())
    going_on = True

    async def change() -> None:
        number = 2
        while going_on:
            await added(first, key(number), f"{number:064x}")
            number += 1

    changing = asyncio.create_task(change())
    for _ in range(10):
        contents = await contents_of(second)
        assert contents.revision == len(contents.keys) == len(contents.tokens)
    going_on = False
    await changing


async def test_a_caller_that_leaves_leaves_the_store_whole(store: Driver) -> None:
    for number in range(8):
        adding = asyncio.create_task(added(store, key(number), f"{number:064x}"))
        for _ in range(number):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
    contents = await contents_of(store)
    assert contents.revision == len(contents.keys) == len(contents.tokens) == len(await events(store))
    await added(store, key(99), "99" * 32)


async def test_a_database_that_is_gone_is_an_error_and_one_that_is_back_is_used_again() -> None:
    with PostgresqlServer() as server:
        store = PostgresqlDriver(server.url())
        await added(store, key())
        server.stop()
        for _ in range(2):
            with pytest.raises(KeyStoreError) as raised:
                await store.read(transactions.revision())
            assert not raised.value.lasting
        server.start()
        assert await store.read(transactions.revision()) == 1
        await store.close()


@pytest.mark.parametrize(("database", "user"), [("nowhere", "postgres"), ("postgres", "nobody_of_the_tests")])
async def test_a_database_that_will_not_have_the_gateway_is_a_lasting_error(
    server: PostgresqlServer, database: str, user: str
) -> None:
    store = PostgresqlDriver(server.url(database, user))
    with pytest.raises(KeyStoreError, match="cannot be used") as raised:
        await store.read(transactions.revision())
    assert raised.value.lasting
    await store.close()


async def test_a_server_that_does_not_answer_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable"
        store = PostgresqlDriver(url, timeout_seconds=0.05)
        with pytest.raises(KeyStoreError, match="TimeoutError"):
            await store.read(transactions.revision())
        await store.close()


@pytest.mark.parametrize("spoilt", ["garbage", "directory", "below a file"])
async def test_a_file_that_is_no_database_is_a_lasting_error(tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "keys.db"
    if spoilt == "garbage":
        path.write_bytes(b"This is no database. " * 100)
    elif spoilt == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"")
        path /= "keys.db"
    store = SqliteDriver(path)
    with pytest.raises(KeyStoreError, match="cannot be used") as raised:
        await store.write(transactions.add_key(key(), DIGEST, BY, NO_TEAMS))
    assert raised.value.lasting
    await store.close()


async def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = make_driver("sqlite://", tmp_path / "state")
    await added(store, key())
    await store.close()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state/keys.db").stat().st_mode & 0o077 == 0


async def test_a_url_may_name_another_file(tmp_path: Path) -> None:
    store = make_driver(f"sqlite://{tmp_path}/elsewhere.db", tmp_path / "state")
    await added(store, key())
    await store.close()
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "state").exists()
