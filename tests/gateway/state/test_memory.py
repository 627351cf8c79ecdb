"""What only the store of one process promises: an injected clock, and that it does not grow."""

from gateway.state.claims import Amount, Claim, Place, Rate, Settlement
from gateway.state.memory import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_bucket_is_refilled_evenly() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    assert (await store.claim([Rate("a", 60, 60)])).refused is None
    clock.now += 0.999
    assert (await store.claim([Rate("a", 60)])).refused == 0
    clock.now += 0.002
    assert (await store.claim([Rate("a", 60)])).refused is None
    assert (await store.claim([Rate("a", 60)])).refused == 0


async def test_it_holds_only_what_has_an_effect() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(100_000):
        clock.now += 0.1
        name = str(number)
        claims: list[Claim] = [
            Rate(f"rate {name}", 60),
            Place(f"place {name}", 1, name, 5.0),
            Amount(f"budget {name}", 10, 1, name, 5.0, 30.0),
        ]
        assert (await store.claim(claims)).refused is None
        if number % 2:
            await store.settle([Settlement(claim, used=1) for claim in claims])
        await store.put(name, b"1", 1.0)
    assert store._entries() < 10_000


async def test_the_leases_of_a_busy_key_do_not_add_up() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(10_000):
        claim = Place("key", 2, str(number), 3600.0)
        assert (await store.claim([claim])).refused is None
        await store.settle([Settlement(claim)])
    assert len(store._places["key"]._ends) < 200
