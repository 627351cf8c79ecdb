"""The lock of a directory that one gateway uses: one process, or a group of them that work as one.

A process by itself locks out all others. Of a group, the first one does so too while it puts the directory in order, writes the
group's name down, and then lets in whoever bears the same name. The end of a process unlocks, however it ends. Everything here
blocks. Above are the stores of files and batches, and the ledger.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from gateway.files.faults import InUseError

_WAIT_SECONDS: Final = 5.0
"""How long one of a group waits for the first of it, which puts the directory in order."""

_STRANGER_SECONDS: Final = 0.5
"""How long it takes another group for one that is just looking."""

_PAUSE_SECONDS: Final = 0.01


class DirectoryLock:
    """A lock that is held.

    Attributes:
        alone: Whether nobody else uses the directory, so that it may be put in order.
    """

    def __init__(self, root: Path, descriptor: int, group: str, *, alone: bool) -> None:
        self.alone = alone
        self._root = root
        self._descriptor = descriptor
        self._group = group

    def share(self) -> None:
        """Lets in the others of the group, if there is one. The directory must be in order.

        Raises:
            InUseError: Another gateway took the directory in the very moment.
        """
        if self._group and self.alone:
            self.alone = False
            # The system may let somebody in between the two locks; one of the group will be through in a moment.
            _wait_for(self._root, self._descriptor, self._group, first=False)

    def release(self) -> None:
        """Unlocks."""
        os.close(self._descriptor)


def lock_directory(root: Path, group: str = "") -> DirectoryLock:
    """Locks a directory against other gateways.

    Args:
        root: The directory.
        group: The name of the group that works as one; empty for a process by itself.

    Raises:
        InUseError: Another gateway uses it.
    """
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        alone = _wait_for(root, descriptor, group, first=True)
    except BaseException:
        os.close(descriptor)
        raise
    return DirectoryLock(root, descriptor, group, alone=alone)


def _wait_for(root: Path, descriptor: int, group: str, *, first: bool) -> bool:
    """Returns once it is locked, and tells whether nobody else has it."""
    began = time.monotonic()
    stranger_since: float | None = None
    while True:
        now = time.monotonic()
        if first and _locked(descriptor, fcntl.LOCK_EX):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, group.encode(), 0)
            return True
        if group and _locked(descriptor, fcntl.LOCK_SH):
            if os.pread(descriptor, 256, 0) == group.encode():
                return False
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            stranger_since = now if stranger_since is None else stranger_since
        if not group or now - began > _WAIT_SECONDS or (stranger_since is not None and now - stranger_since > _STRANGER_SECONDS):
            raise InUseError(f"{root} is used by another gateway: give each its own files.dir and batches.dir.")
        time.sleep(_PAUSE_SECONDS)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
