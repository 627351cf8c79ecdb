"""The TCP sockets that this process has at one of its ports, also those that a library made which does not show them.

Above is `gateway.server`: grpc.aio has no way to stop listening without turning away the calls of connections that are there.
"""

import os
import socket
from pathlib import Path
from typing import Final

_OPEN: Final = Path("/dev/fd")


def connections(port: int) -> int:
    """Returns how many connections of others this process has at a port. It looks at every open file, so it takes a moment."""
    found = _sockets(port)
    for one in found:
        one.close()
    return sum(1 for one in found if one.connected)


def stop_listening(port: int) -> None:
    """Has the system send no further connection to this process's sockets at a port; connections that are there stay."""
    for one in _sockets(port):
        if not one.connected:
            one.handle.shutdown(socket.SHUT_RDWR)
        one.close()


class _Socket:
    def __init__(self, handle: socket.socket) -> None:
        self.handle = handle
        self.connected = not handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    def close(self) -> None:
        self.handle.close()


def _sockets(port: int) -> list[_Socket]:
    found = []
    for entry in list(_OPEN.iterdir()):
        try:
            copy = os.dup(int(entry.name))
        except OSError:  # closed meanwhile
            continue
        try:
            handle = socket.socket(fileno=copy)
        except OSError:  # no socket
            os.close(copy)
            continue
        if handle.family in {socket.AF_INET, socket.AF_INET6} and handle.type == socket.SOCK_STREAM and _port(handle) == port:
            found.append(_Socket(handle))
        else:
            handle.close()
    return found


def _port(handle: socket.socket) -> int:
    try:
        return int(handle.getsockname()[1])
    except OSError:
        return 0
