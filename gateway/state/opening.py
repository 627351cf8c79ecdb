"""Makes the store that the configuration names. Above is `gateway.app`."""

from gateway.state.leasing import LeasingStore
from gateway.state.memory import MemoryStore
from gateway.state.store import Store
from gateway.state.valkey import ValkeyStore


def make_store(url: str, lease_requests: int = 0) -> Store:
    """Returns the store at a URL: `memory://`, or that of a Valkey or Redis server.

    Args:
        url: The URL.
        lease_requests: For how many requests a rate is taken from a server at once; below 2 for each by itself.
    """
    if url.startswith("memory:"):
        return MemoryStore()
    store = ValkeyStore(url)
    return LeasingStore(store, lease_requests) if lease_requests > 1 else store
