"""Rates that are taken ahead of their use: how few round trips that takes, and by how much a limit may be exceeded."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.state.claims import Claim, Place, Rate, Settlement, Verdict
from gateway.state.leasing import LeasingStore
from gateway.state.memory import MemoryStore
from gateway.state.store import Store, StoreError
from gateway.state.valkey import ValkeyStore
from tests.servers import valkey

HOUR = 3600


class Counting(MemoryStore):
    """A store that counts how often it is asked, and can be made to fail."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 1000.0)
        self.asked = 0
        self.broken = False

    async def claim(self, claims: Sequence[Claim]) -> Verdict:
        self.asked += 1
        await asyncio.sleep(0)  # as a server would, it lets others go on meanwhile
        if self.broken:
            raise StoreError
        return await super().claim(claims)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def requests(limit: int = 100) -> Rate:
    return Rate("requests", limit, 1, HOUR)


async def passed(stores: Sequence[Store], count: int, *claims: Claim) -> int:
    """Makes so many requests at once, in turns at each of the stores, and returns how many were let in."""
    verdicts = await asyncio.gather(*(stores[number % len(stores)].claim(claims) for number in range(count)))
    return sum(verdict.refused is None for verdict in verdicts)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with valkey() as started:
        yield f"valkey://127.0.0.1:{started.port}"


@pytest.fixture
async def processes(server: str) -> AsyncIterator[list[LeasingStore]]:
    """Gives what three processes have that share a server, and take ten requests at once."""
    below = [ValkeyStore(server) for _ in range(3)]
    await below[0]._client.flushall()
    made = [LeasingStore(store, 10) for store in below]
    yield made
    for store in made:
        await store.close()


async def test_a_hot_key_costs_a_round_trip_a_block_and_not_one_a_request() -> None:
    below = Counting()
    store = LeasingStore(below, 20, clock=Clock())
    assert await passed([store], 400, requests(limit=1000)) == 400
    assert below.asked == 20
    await store.close()


async def test_of_a_burst_over_several_processes_exactly_as_many_pass_as_the_limit_says(processes: list[LeasingStore]) -> None:
    assert await passed(processes, 600, requests()) == 100


@given(st.integers(1, 60), st.integers(2, 30), st.integers(1, 4), st.integers(1, 120))
def test_of_what_the_bucket_holds_nothing_is_let_in_twice_and_nothing_is_lost(
    limit: int, block: int, processes: int, asked: int
) -> None:
    async def run() -> int:
        below = Counting()
        stores = [LeasingStore(below, block, clock=Clock()) for _ in range(processes)]
        let_in = await passed(stores, asked, requests(limit))
        for store in stores:
            await store.close()
        left = (await below.left([Rate("requests", limit, 0, HOUR)])).left[0].left
        assert limit - let_in - left in (0, 1)  # rates are kept in whole microseconds
        return let_in

    let_in = asyncio.run(run())
    assert let_in <= min(limit, asked)
    # What one process has taken ahead another cannot use, so it may refuse too early by less than a block for each other process.
    assert let_in >= min(limit, asked) - (processes - 1) * (min(block, limit) - 1)


async def test_a_process_may_exceed_the_limit_by_what_it_has_taken_ahead_and_by_no_more_than_a_block() -> None:
    """It takes a block, waits until the bucket has filled again, and uses both: so much is the bound that is documented."""
    seconds = [1000.0]
    below = MemoryStore(clock=lambda: seconds[0])
    clock = Clock()
    store = LeasingStore(below, 10, clock=clock)
    assert await passed([store], 1, requests()) == 1
    seconds[0] += HOUR
    clock.now += 0.9  # it may be kept for so long
    assert await passed([store], 300, requests()) == 109
    await store.close()


async def test_what_was_taken_ahead_and_not_used_is_given_back() -> None:
    below = Counting()
    store = LeasingStore(below, 50, clock=Clock())
    assert await passed([store], 3, requests()) == 3
    assert (await below.left([Rate("requests", 100, 0, HOUR)])).left[0].left == 50
    assert (await store.left([Rate("requests", 100, 0, HOUR)])).left[0].left == 97
    await store.close()
    assert (await below.left([Rate("requests", 100, 0, HOUR)])).left[0].left == 97


async def test_a_lease_that_is_over_is_used_no_more() -> None:
    below, clock = Counting(), Clock()
    store = LeasingStore(below, 10, clock=clock)
    await passed([store], 1, requests())
    clock.now = 1.0
    await passed([store], 1, requests())
    assert below.asked == 2
    await store.close()


async def test_tokens_are_settled_within_the_lease() -> None:
    below = Counting()
    store = LeasingStore(below, 4, clock=Clock())
    tokens = Rate("tokens", 10_000, 100, HOUR)
    assert await passed([store], 1, tokens) == 1
    await store.settle([Settlement(tokens, 350)])
    assert await passed([store], 1, tokens) == 1
    await store.close()
    assert below.asked == 2
    assert (await below.left([Rate("tokens", 10_000, 0, HOUR)])).left[0].left == 10_000 - 350 - 100


async def test_what_is_claimed_together_with_a_place_is_not_taken_ahead() -> None:
    below = Counting()
    store = LeasingStore(below, 10, clock=Clock())
    place = Place("place", 1, "first", 60.0)
    assert (await store.claim([requests(), place])).refused is None
    verdict = await store.claim([requests(), Place("place", 1, "second", 60.0)])
    assert verdict.refused == 1
    await store.settle([Settlement(place)])
    assert (await store.claim([requests(), Place("place", 1, "third", 60.0)])).refused is None
    await store.close()
    assert (await below.left([Rate("requests", 100, 0, HOUR)])).left[0].left == 98


async def test_a_caller_that_leaves_while_it_waits_gives_back_what_it_had_of_a_lease() -> None:
    below = Counting()
    store = LeasingStore(below, 3, clock=Clock())
    tokens = Rate("tokens", 1000, 100, HOUR)
    assert await passed([store], 1, requests()) == 1
    leaves = asyncio.create_task(store.claim([requests(), tokens]))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    assert leaves.cancelled()
    assert await passed([store], 2, requests()) == 2
    assert below.asked == 2
    await store.close()


async def test_without_its_server_it_says_so_and_keeps_what_it_has() -> None:
    below = Counting()
    store = LeasingStore(below, 3, clock=Clock())
    assert await passed([store], 1, requests()) == 1
    below.broken = True
    assert await passed([store], 2, requests()) == 2
    with pytest.raises(StoreError):
        await store.claim([requests()])
    below.broken = False
    assert await passed([store], 1, requests()) == 1
    await store.close()
    assert (await below.left([Rate("requests", 100, 0, HOUR)])).left[0].left == 96
