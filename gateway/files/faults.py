"""What a fault of the disk means to a caller. Paths and reasons go to the log; the caller learns what to do."""

import errno
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

_log = logging.getLogger(__name__)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ELOOP})
_DATABASE_NOT_OURS = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOTADB})
_RETRY_AFTER_SECONDS = 60.0
_BUSY_RETRY_AFTER_SECONDS = 1.0


class InUseError(Exception):
    """Another process keeps its files in the same directory."""


@contextmanager
def storage_faults() -> Iterator[None]:
    """Turns the faults of a disk into errors for callers.

    Raises:
        GatewayError: OVERLOADED if there is no room or another process holds it up, NOT_CONFIGURED if the directory cannot be used.
    """
    try:
        yield
    except InUseError as error:
        _log.error("%s", error)
        raise GatewayError(
            ErrorKind.ERROR_KIND_NOT_CONFIGURED,
            "Another gateway keeps its files in the same place. Whoever runs this one must give it its own (files.dir).",
        ) from error
    except (OSError, sqlite3.Error) as error:
        known = _known(error)
        if known is None:
            raise
        _log.error("Files cannot be kept: %s", error)
        raise known from error


def _known(error: OSError | sqlite3.Error) -> GatewayError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in the upper bits
    number = error.errno if isinstance(error, OSError) else None
    if code == sqlite3.SQLITE_BUSY:
        return GatewayError(
            ErrorKind.ERROR_KIND_OVERLOADED,
            "The gateway's files are busy. Try again in a moment.",
            retry_after=_BUSY_RETRY_AFTER_SECONDS,
        )
    if number in _NO_ROOM or code == sqlite3.SQLITE_FULL:
        return GatewayError(
            ErrorKind.ERROR_KIND_OVERLOADED,
            "The gateway has no room left for files. Delete some that are not needed, or tell whoever runs it.",
            retry_after=_RETRY_AFTER_SECONDS,
        )
    if number in _NOT_OURS or code in _DATABASE_NOT_OURS:
        return GatewayError(
            ErrorKind.ERROR_KIND_NOT_CONFIGURED,
            "The gateway cannot use its directory for files. Whoever runs it finds the reason in its log (files.dir).",
        )
    return None
