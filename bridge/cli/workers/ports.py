"""The ports that all workers share.

The supervisor binds them at its start and holds them to its end, so that they stay its own while workers come and go. A socket that
is bound but does not listen gets no connection. For gRPC each worker binds one of its own beside it, with `SO_REUSEPORT`. For REST
each is given one that is bound already, and it goes from a worker to the one that takes its place: connections that wait in it are
not lost. Among the sockets of one port, the system shares connections out.
"""

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from bridge.cli.problem import Problem

_EVERYWHERE: Final = ("", None)
_NO_SUCH_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class SharedPort:
    """A port that is held for several processes.

    Attributes:
        port: Its number.
    """

    def __init__(self, host: str | None, port: int, advice: str, *, dual: bool = False) -> None:
        """Binds it.

        Args:
            host: The address; empty or None for all interfaces.
            port: The number; 0 for a free one.
            advice: What to do if it cannot be bound: a sentence.
            dual: Whether one socket is for both kinds of addresses where it is for all interfaces.

        Raises:
            Problem: It cannot be bound, or this system cannot share ports.
        """
        if not hasattr(socket, "SO_REUSEPORT"):
            raise Problem("This system cannot share a port among processes (SO_REUSEPORT): serve with --workers 1.", 2)
        self.port = port
        self._dual = dual and host in _EVERYWHERE
        try:
            self._addresses = self._found(host)
            # One that others cannot share tells whether the port is free; another gateway would share it without a word.
            with ExitStack() as stack:
                for probe in self._bound(socket.SO_REUSEADDR):
                    stack.callback(probe.close)
            self._held = self._bound(socket.SO_REUSEPORT)
        except OSError as error:
            raise Problem(f"Cannot listen on {host or '*'}:{port}: {_reason(error)}. {advice}") from error

    def more(self) -> list[socket.socket]:
        """Returns further sockets for the port, which do not listen yet. They are the caller's to close.

        Raises:
            OSError: The system refuses.
        """
        return self._bound(socket.SO_REUSEPORT)

    def close(self) -> None:
        """Lets go of the port."""
        for held in self._held:
            held.close()

    def _found(self, host: str | None) -> Sequence[tuple[int, str]]:
        if self._dual:
            return [(socket.AF_INET6, "::")]
        found = socket.getaddrinfo(host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))

    def _bound(self, option: int) -> list[socket.socket]:
        made: list[socket.socket] = []
        failure: OSError | None = None
        try:
            for family, host in self._addresses:
                try:
                    made.append(self._socket(family, host, option))
                except OSError as error:
                    if error.errno not in _NO_SUCH_FAMILY:
                        raise
                    failure = error
                    if self._dual:
                        made.append(self._socket(socket.AF_INET, "0.0.0.0", option))
            if not made and failure is not None:
                raise failure
        except OSError:
            for one in made:
                one.close()
            raise
        return made

    def _socket(self, family: int, host: str, option: int) -> socket.socket:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not self._dual))
            one.setblocking(False)
            one.bind((host, self.port))
        except OSError:
            one.close()
            raise
        self.port = int(one.getsockname()[1])  # which the next one shall have too
        return one


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
