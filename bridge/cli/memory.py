"""How a process that serves handles its memory."""

import ctypes
import gc

_COLLECTOR_THRESHOLDS = (20_000, 20, 20)
_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD of <malloc.h>
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD
_KEPT_BYTES = 16 * 1024 * 1024
_MAPPED_BYTES = 4 * 1024 * 1024


def settle() -> None:
    """Settles the process's memory once it has started."""
    _settle_collector()
    _keep_freed_memory()


def _settle_collector() -> None:
    """Keeps the garbage collector from looking again and again at what was made at start, which stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


def _keep_freed_memory() -> None:
    """Lets the C library keep up to 16 MB that was freed, where it is glibc; elsewhere it does nothing.

    A coding agent's request takes several buffers of some 100 KB. Left to itself, glibc gives them back to the system and asks for
    them anew with the next request, depending on what lies behind them; every page of them then costs a fault, 90 a request.
    Buffers over 4 MB are still given back at once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
