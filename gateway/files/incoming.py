"""Files on their way: bytes on disk that are nothing yet, and that the next start removes if a crash leaves them.

Above are `gateway.files.blobs`, which gives them a place, and `gateway.backends`, which sends them on. Everything here blocks.
"""

import os
import threading
from pathlib import Path
from tempfile import mkstemp
from typing import Final

PRIVATE: Final = 0o700
"""The rights of directories that nobody else may read."""


class IncomingDirectory:
    """A directory of them."""

    def __init__(self, root: Path) -> None:
        """Makes the directory if it is not there.

        Raises:
            OSError: It cannot be made.
        """
        root.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        self._root = root

    def sweep(self) -> int:
        """Removes all that a crash has left over, and returns how many files that were."""
        leftovers = list(self._root.iterdir())
        for path in leftovers:
            path.unlink()
        return len(leftovers)

    def begin(self) -> "Incoming":
        """Begins to take a file."""
        descriptor, path = mkstemp(dir=self._root)
        return Incoming(descriptor, Path(path))


class Incoming:
    """A file that is being taken. Calls from several threads wait for one another."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._open = True
        self._lock = threading.Lock()

    def write(self, data: bytes | bytearray) -> None:
        """Adds bytes at the end."""
        with self._lock:
            rest = memoryview(data)
            while rest and self._open:
                rest = rest[os.write(self._descriptor, rest) :]

    def read(self, offset: int, length: int) -> bytes:
        """Returns up to so many of the bytes that were written; none at their end, or once it is discarded."""
        with self._lock:
            return os.pread(self._descriptor, length, offset) if self._open else b""

    def settle(self, place: Path) -> None:
        """Syncs what was written and moves it to its place."""
        with self._lock:
            os.fsync(self._descriptor)
            self._path.rename(place)
            self._close()

    def discard(self) -> None:
        """Removes it, unless it has its place. Idempotent."""
        with self._lock:
            if self._open:
                self._close()
                self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._open = False
        os.close(self._descriptor)
