"""What the system knows of this process's threads: how much processor time each has used, and whether it runs now.

It is read from `/proc`, which is safe for threads that end meanwhile. Elsewhere than on Linux nothing is known. Above is `cpu`.
"""

import os
import threading
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")


def native_ids() -> dict[int, int]:
    """Returns the system's ids of the threads that Python knows, by Python's."""
    return {
        thread.ident: thread.native_id
        for thread in threading.enumerate()
        if thread.ident is not None and thread.native_id is not None
    }


def processor_ns(native_id: int) -> int | None:
    """Returns how much processor time a thread has used, in nanoseconds; None if nobody knows."""
    try:
        return int((_TASKS / str(native_id) / "schedstat").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def runs(native_id: int) -> bool:
    """Tells whether a thread is on a processor, or waits for one."""
    try:
        file = os.open(f"{_TASKS}/{native_id}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.read(file, 512)
    except OSError:  # it has ended meanwhile
        return False
    finally:
        os.close(file)
    return status.rpartition(b")")[2].split()[:1] == [b"R"]


def process_ns() -> int:
    """Returns how much processor time all threads have used, those that have ended among them, in nanoseconds."""
    times = os.times()
    return int((times.user + times.system) * 1e9)
