"""Bytes on disk, each file whole or not there at all.

    lock        held by the one gateway that keeps its files here
    incoming/   uploads under way; whatever is here at a start is a leftover
    blobs/ID    what files hold; without an entry in the database it is a leftover too

Above it: `gateway.files.store`, which knows the entries and calls all this in threads. Everything here blocks.
"""

import os
import shutil
import threading
from collections.abc import Container
from pathlib import Path

from gateway.files.directory_lock import lock_directory
from gateway.files.incoming import PRIVATE, Incoming, IncomingDirectory


class Blobs:
    """The bytes of all files, below one directory."""

    def __init__(self, root: Path, group: str = "") -> None:
        """Makes the directories, and locks them against other gateways.

        Args:
            root: The directory that has them.
            group: The name of the processes that work as one; empty for one by itself.

        Raises:
            InUseError: Another gateway has locked them.
            OSError: They cannot be made.
        """
        self._blobs = root / "blobs"
        for directory in (root, self._blobs):
            directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        self._incoming = IncomingDirectory(root / "incoming")
        self._lock = lock_directory(root, group)

    @property
    def alone(self) -> bool:
        """Whether no other process uses the directory, so that it may be swept."""
        return self._lock.alone

    def share(self) -> None:
        """Lets in the other processes that work with this one."""
        self._lock.share()

    def close(self) -> None:
        """Lets another gateway have the directory."""
        self._lock.release()

    def sweep(self, known: Container[str]) -> int:
        """Removes all that a crash has left over, and returns how many files that were.

        Args:
            known: The ids that have an entry.
        """
        leftovers = [path for path in self._blobs.iterdir() if path.name not in known]
        for path in leftovers:
            path.unlink()
        return len(leftovers) + self._incoming.sweep()

    def begin(self) -> Incoming:
        """Begins to take a file."""
        return self._incoming.begin()

    def publish(self, incoming: Incoming, name: str) -> None:
        """Gives an upload its place under its id, on disk when this returns."""
        incoming.settle(self._blobs / name)
        _sync_directory(self._blobs)

    def open(self, name: str) -> "Content | None":
        """Opens a file for reading; returns None if there is none."""
        try:
            return Content(os.open(self._blobs / name, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens if there is none."""
        (self._blobs / name).unlink(missing_ok=True)

    def link(self, name: str, target: Path) -> bool:
        """Keeps what a file holds under a further path, where it stays when the file is removed. On disk when this returns.

        Returns:
            Whether there is such a file.
        """
        source = self._blobs / name
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, one without links, or no file
            if not source.exists():
                return False
            shutil.copyfile(source, target)
            with target.open("rb") as copied:
                os.fsync(copied.fileno())
        _sync_directory(target.parent)
        return True


class Content:
    """What a file holds, open for reading; it stays readable after the file is removed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._open = True
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Returns up to so many bytes from there; none at the end, or once it is closed."""
        with self._lock:
            return os.pread(self._descriptor, length, offset) if self._open else b""

    def close(self) -> None:
        """Closes it. Idempotent."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
