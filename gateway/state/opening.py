"""Makes the store that the configuration names. Above is `gateway.app`."""

from gateway.state.memory import MemoryStore
from gateway.state.store import Store
from gateway.state.valkey import ValkeyStore


def make_store(url: str) -> Store:
    """Returns the store at a URL: `memory://`, or that of a Valkey or Redis server."""
    return MemoryStore() if url.startswith("memory:") else ValkeyStore(url)
