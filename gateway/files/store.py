"""The store of files: who owns what, and the order of writes that a crash cannot break.

    take     bytes to incoming/, sync, move to blobs/, sync, then the entry: only with it does the file exist
    delete   the entry first, then the bytes

So there is never an entry without its bytes, and bytes without an entry are leftovers, which the next start removes. Above it: the
services of files and of batches. Below it: `gateway.files.blobs`, which blocks and is called in threads, and `gateway.database`.
"""

import asyncio
import logging
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.database import Database
from gateway.errors import GatewayError
from gateway.files.blobs import Blobs, Content
from gateway.files.description import Description
from gateway.files.faults import storage_faults
from gateway.files.incoming import Incoming
from gateway.files.upload import Upload
from gateway.identifiers import Identifiers

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_PREFIX = "file-"
_THREADS = 4
PIECE_BYTES = 256 * 1024
"""How much is read at a time."""
_SWEEP_SECONDS = 60.0
_ID_SHOWN = 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER,
    filename TEXT NOT NULL, purpose TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_owner ON files (owner, id);
CREATE INDEX IF NOT EXISTS files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a file.

    Attributes:
        id: Its name at the gateway.
        owner: The name of the key that made it.
        bytes: How much it holds.
        created_at: When it was made, in seconds since 1970.
        expires_at: When it ceases to be; None for never.
        filename: The name that its uploader gave it.
        purpose: What it is for.
    """

    id: str
    owner: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str


@dataclass(slots=True)
class _Opened:
    blobs: Blobs
    database: Database
    ids: Identifiers
    sweeper: "asyncio.Task[None]"


class FileStore:
    """Keeps files below one directory. It is opened by its first use, so that a gateway without files leaves no trace on disk.

    Every method raises a `GatewayError` if the directory cannot be used or has no room.
    """

    provider = False

    def __init__(
        self, root: Path, max_bytes: Callable[[], int], *, clock: Callable[[], float] = time.time, group: str = ""
    ) -> None:
        """Makes a store.

        Args:
            root: The directory.
            max_bytes: Returns the size of the largest file that is taken.
            clock: Seconds since 1970.
            group: The name of the processes that keep their files together; empty for one by itself.
        """
        self.root = root
        self._group = group
        self._max_bytes = max_bytes
        self._clock = clock
        self._opening = asyncio.Lock()
        self._opened: _Opened | None = None
        self._publishing: set[asyncio.Task[None]] = set()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")

    @property
    def exists(self) -> bool:
        """Whether there is something to open: the directory of an earlier run."""
        return (self.root / "files.db").exists()

    async def open(self) -> None:
        """Opens the store if it is not open, and removes what a crash has left."""
        await self._open()

    async def close(self) -> None:
        """Closes the store. Uploads and downloads must have ended. Idempotent."""
        await asyncio.gather(*self._publishing, return_exceptions=True)
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.sweeper.cancel()
            await asyncio.gather(opened.sweeper, return_exceptions=True)
            await opened.database.close()
            opened.blobs.close()
        self._executor.shutdown()

    async def begin(self, *, bounded: bool = True) -> Upload:
        """Begins to take a file, of any size unless it is `bounded`. The upload must be left; that discards it unless committed."""
        opened = await self._open()
        incoming = await self._acquire(opened.blobs.begin, Incoming.discard)
        return Upload(incoming, self._in_thread, self._max_bytes() if bounded else sys.maxsize)

    async def commit(self, upload: Upload, owner: str, description: Description, *, id: str = "") -> Entry:  # noqa: A002 (it is one)
        """Makes a file of an upload. When this returns, the file is on disk; a cancelled caller may find that it is there.

        Args:
            upload: What the file holds.
            owner: The name of the key whose file it will be.
            description: What is known of it.
            id: The file's id, made by `new_id`; empty for a new one.
        """
        opened = await self._open()
        await upload.flush()
        now = int(self._clock())
        entry = Entry(
            id or opened.ids.new(),
            owner,
            upload.bytes,
            now,
            None if description.seconds is None else now + description.seconds,
            description.filename,
            description.purpose,
        )
        # A task of its own, since a caller that goes away now must not leave bytes without their entry behind.
        publishing = asyncio.create_task(self._publish(opened, upload, entry))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)
        await asyncio.shield(publishing)
        return entry

    async def new_id(self) -> str:
        """Returns an id for a file that is yet to be made."""
        return (await self._open()).ids.new()

    async def list(self, owner: str | None, *, purpose: str, limit: int, after: str, ascending: bool) -> tuple[list[Entry], bool]:
        """Returns files in the order of their ids, and whether there are more.

        Args:
            owner: Whose; None for everyone's.
            purpose: Only those for this; empty for all.
            limit: Most files to return.
            after: The id to begin after; empty for the first page.
            ascending: Whether the oldest come first.

        Raises:
            GatewayError: `after` is no id.
        """
        opened = await self._open()
        if after and not opened.ids.has_form(after):
            raise GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "'after' must be the id of a file.", param="after")
        clauses, values = ["(expires_at IS NULL OR expires_at > ?)"], [int(self._clock())]
        given: list[tuple[str, str | None]] = [
            ("owner = ?", owner),
            ("purpose = ?", purpose or None),
            (f"id {'>' if ascending else '<'} ?", after or None),
        ]
        clauses += [clause for clause, value in given if value is not None]
        parameters = (*values, *(value for _, value in given if value is not None), limit + 1)
        # Nothing of a caller's is in the statement: clauses are those above.
        statement = f"SELECT * FROM files WHERE {' AND '.join(clauses)} ORDER BY id {'ASC' if ascending else 'DESC'} LIMIT ?"  # noqa: S608
        with storage_faults():
            rows = await opened.database.run(lambda db: db.execute(statement, parameters).fetchall())
        return [Entry(*row) for row in rows[:limit]], len(rows) > limit

    async def get(self, id: str, owner: str | None) -> Entry:  # noqa: A002 (it is one)
        """Returns what is known of a file.

        Args:
            id: The file.
            owner: Whose it must be; None for anyone's.

        Raises:
            GatewayError: NOT_FOUND: there is none, or it is somebody else's.
        """
        opened = await self._open()
        with storage_faults():
            row = await opened.database.run(partial(_row, id=id))
        if row is None or (owner is not None and row["owner"] != owner) or self._has_expired(row["expires_at"]):
            raise _not_found(id)
        return Entry(*row)

    async def delete(self, id: str, owner: str | None) -> None:  # noqa: A002 (it is one)
        """Deletes a file; what reads it at the moment may go on. The arguments are those of `get`, and so is what it raises."""
        entry = await self.get(id, owner)
        opened = await self._open()
        with storage_faults():
            deleted = await opened.database.run(lambda db: db.execute("DELETE FROM files WHERE id = ?", (entry.id,)).rowcount)
        if not deleted:
            raise _not_found(id)
        await self._in_thread(opened.blobs.remove, entry.id)

    async def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Gives what a file holds, piece by piece. It must be closed.

        Args:
            entry: The file.
            offset: Where to begin.
            length: Most bytes to give; None for all that follow.
        """
        opened = await self._open()
        content = await self._acquire(partial(opened.blobs.open, entry.id), _close)
        if content is None:  # deleted a moment ago
            raise _not_found(entry.id)
        end = entry.bytes if length is None else min(entry.bytes, offset + length)
        try:
            while offset < end:
                piece = await self._in_thread(content.read, offset, min(PIECE_BYTES, end - offset))
                if not piece:
                    raise EOFError(f"{entry.id} holds less than its entry says.")
                offset += len(piece)
                yield piece
        finally:
            await self._in_thread(content.close)

    async def link(self, entry: Entry, target: Path) -> None:
        """Keeps what a file holds under a further path, where it stays when the file is deleted.

        Raises:
            GatewayError: NOT_FOUND: it was deleted a moment ago.
        """
        opened = await self._open()
        if not await self._in_thread(opened.blobs.link, entry.id, target):
            raise _not_found(entry.id)

    async def _publish(self, opened: _Opened, upload: Upload, entry: Entry) -> None:
        await self._in_thread(upload.publish, opened.blobs, entry.id)
        values = (entry.id, entry.owner, entry.bytes, entry.created_at, entry.expires_at, entry.filename, entry.purpose)
        try:
            with storage_faults():
                await opened.database.run(lambda db: db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", values).rowcount)
        except GatewayError:
            await self._in_thread(opened.blobs.remove, entry.id)
            raise

    async def _open(self) -> _Opened:
        if self._opened is not None:
            return self._opened
        async with self._opening:
            if self._opened is None:
                blobs, database, last = await self._in_thread(self._open_blocking)
                sweeper = asyncio.create_task(self._sweep())
                self._opened = _Opened(blobs, database, Identifiers(_PREFIX, last=last), sweeper)
            return self._opened

    def _open_blocking(self) -> tuple[Blobs, Database, str]:
        blobs = Blobs(self.root, self._group)
        try:
            known = _ids(self.root / "files.db")
            swept = blobs.sweep(known) if blobs.alone else 0
            database = Database(self.root / "files.db", _SCHEMA)
            blobs.share()
        except BaseException:
            blobs.close()
            raise
        if swept:
            _log.info("Removed %d files that a crash has left over.", swept)
        return blobs, database, max(known, default="")

    async def _sweep(self) -> None:
        """Removes files that have expired, now and then; until it does, they are hidden."""
        while True:
            try:
                await self._remove_expired()
            except GatewayError:
                pass  # it is in the log, and tried again
            except Exception:  # noqa: BLE001 (whatever it is, it is logged, and the next round may do better)
                _log.exception("Files that have expired could not be removed")
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _remove_expired(self) -> None:
        opened = await self._open()
        now = int(self._clock())
        with storage_faults():
            rows = await opened.database.run(
                lambda db: db.execute("DELETE FROM files WHERE expires_at <= ? RETURNING id", (now,)).fetchall()
            )
        for row in rows:
            await self._in_thread(opened.blobs.remove, row["id"])

    def _has_expired(self, expires_at: int | None) -> bool:
        return expires_at is not None and expires_at <= self._clock()

    async def _acquire(self, acquire: Callable[[], T], release: Callable[[T], None]) -> T:
        """Calls a function that blocks. If the caller is cancelled meanwhile, what the function returns is released."""
        future = self._executor.submit(acquire)
        try:
            with storage_faults():
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(partial(_release, release))
            raise

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with storage_faults():
            return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))


def _release(release: Callable[[T], None], done: "Future[T]") -> None:
    if not done.cancelled() and done.exception() is None:
        release(done.result())


def _close(content: Content | None) -> None:
    if content is not None:
        content.close()


def _row(db: sqlite3.Connection, id: str) -> sqlite3.Row | None:  # noqa: A002 (it is one)
    row: sqlite3.Row | None = db.execute("SELECT * FROM files WHERE id = ?", (id,)).fetchone()
    return row


def _ids(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        return {row[0] for row in connection.execute("SELECT id FROM files")}
    finally:
        connection.close()


def _not_found(id: str) -> GatewayError:  # noqa: A002 (it is one)
    return GatewayError(
        ErrorKind.ERROR_KIND_NOT_FOUND, f"There is no file '{id[:_ID_SHOWN]}'. GET /v1/files lists yours.", param="id"
    )
