"""The store of batches: what each is, and the answers of its lines until they are written out.

An answer and the count of it are one change, on disk before the next look at the batch. Above it: the worker and the service. Below
it: `gateway.database`, and a directory with the inputs of the batches under way, which stay there if their files are deleted.
"""

import asyncio
import dataclasses
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.batches.batch import UNFINISHED, Batch
from gateway.database import Database
from gateway.errors import GatewayError
from gateway.files.directory_lock import DirectoryLock, lock_directory
from gateway.files.faults import storage_faults
from gateway.identifiers import Identifiers

_PREFIX = "batch_"
_ID_SHOWN = 64
_RESULTS_AT_A_TIME = 200
_COLUMNS = tuple(field.name for field in dataclasses.fields(Batch))
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS batches ({", ".join(f"{name}{' PRIMARY KEY' if name == 'id' else ''}" for name in _COLUMNS)});
CREATE INDEX IF NOT EXISTS batches_by_owner ON batches (owner, id);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
CREATE TABLE IF NOT EXISTS results (
    batch TEXT NOT NULL, line INTEGER NOT NULL, ok INTEGER NOT NULL, output BLOB NOT NULL, PRIMARY KEY (batch, line)
) STRICT;
"""


@dataclasses.dataclass(frozen=True, slots=True)
class _Opened:
    database: Database
    ids: Identifiers
    lock: DirectoryLock


class BatchStore:
    """Keeps batches below one directory. It is opened by its first use.

    Every method raises a `GatewayError` if the directory cannot be used or has no room.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time, group: str = "") -> None:
        """Makes a store.

        Args:
            root: The directory.
            clock: Seconds since 1970.
            group: The name of the processes that keep their batches together; empty for one by itself.
        """
        self.root = root
        self._group = group
        self._clock = clock
        self._opening = asyncio.Lock()
        self._opened: _Opened | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to open: the directory of an earlier run."""
        return (self.root / "batches.db").exists()

    def now(self) -> int:
        """Returns the time, in seconds since 1970."""
        return int(self._clock())

    def input_path(self, id_: str) -> Path:
        """Returns where the input of a batch under way is."""
        return self.root / f"{id_}.jsonl"

    async def new_id(self) -> str:
        """Returns an id for a batch that is yet to be made."""
        return (await self._open()).ids.new()

    async def close(self) -> None:
        """Closes the store. Idempotent."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.database.close()
            opened.lock.release()

    async def add(self, batch: Batch) -> None:
        """Adds a batch."""
        values = dataclasses.astuple(batch)
        statement = f"INSERT INTO batches VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 (question marks)
        await self._run(lambda db: db.execute(statement, values).rowcount)

    async def get(self, id_: str, owner: str | None = None) -> Batch:
        """Returns a batch; with an owner, only if it is that key's.

        Raises:
            GatewayError: NOT_FOUND.
        """
        row = await self._run(lambda db: db.execute("SELECT * FROM batches WHERE id = ?", (id_,)).fetchone())
        if row is None or (owner is not None and row["owner"] != owner):
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_FOUND,
                f"There is no batch '{id_[:_ID_SHOWN]}'. GET /v1/batches lists yours.",
                param="id",
            )
        return Batch(**dict(row))

    async def list(self, owner: str | None, *, limit: int, after: str) -> tuple[list[Batch], bool]:
        """Returns batches, the newest first, and whether there are more.

        Raises:
            GatewayError: `after` is no id.
        """
        opened = await self._open()
        if after and not opened.ids.has_form(after):
            raise GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "'after' must be the id of a batch.", param="after")
        rows = await self._run(
            lambda db: db.execute(
                "SELECT * FROM batches WHERE (?1 IS NULL OR owner = ?1) AND (?2 = '' OR id < ?2) ORDER BY id DESC LIMIT ?3",
                (owner, after, limit + 1),
            ).fetchall()
        )
        return [Batch(**dict(row)) for row in rows[:limit]], len(rows) > limit

    async def unfinished(self) -> Sequence[tuple[str, str]]:
        """Returns the batches that have something left to be done, the oldest first: their ids, and where they stand."""
        marks = ", ".join("?" * len(UNFINISHED))
        statement = f"SELECT id, status FROM batches WHERE status IN ({marks}) ORDER BY id"  # noqa: S608 (question marks)
        rows = await self._run(lambda db: db.execute(statement, UNFINISHED).fetchall())
        return [(row["id"], row["status"]) for row in rows]

    async def change(self, id_: str, *, where: "tuple[str, ...]", **fields: Any) -> bool:
        """Changes a batch that stands at one of these statuses, and tells whether it did."""
        if not fields.keys() <= set(_COLUMNS):
            raise AssertionError(fields)
        assignments = ", ".join(f"{name} = ?" for name in fields)
        marks = ", ".join("?" * len(where))
        statement = f"UPDATE batches SET {assignments} WHERE id = ? AND status IN ({marks})"  # noqa: S608 (columns, by name)
        return bool(await self._run(lambda db: db.execute(statement, (*fields.values(), id_, *where)).rowcount))

    async def record(self, id_: str, line: int, output: bytes, *, ok: bool) -> None:
        """Keeps the answer of a line and counts it."""
        count = "completed" if ok else "failed"

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO results VALUES (?, ?, ?, ?)", (id_, line, ok, output))
            db.execute(f"UPDATE batches SET {count} = {count} + 1 WHERE id = ?", (id_,))  # noqa: S608 (one of two words)

        await self._run(write)

    async def answered_lines(self, id_: str) -> set[int]:
        """Returns the numbers of the lines whose answers are kept."""
        rows = await self._run(lambda db: db.execute("SELECT line FROM results WHERE batch = ?", (id_,)).fetchall())
        return {row["line"] for row in rows}

    async def outputs(self, id_: str, *, ok: bool) -> AsyncGenerator[bytes, None]:
        """Gives what is kept of the lines that succeeded, or of those that failed, in their order. It must be closed."""
        last = 0
        while True:
            rows = await self._run(partial(_outputs, asked=(id_, ok, last, _RESULTS_AT_A_TIME)))
            if not rows:
                return
            last = rows[-1]["line"]
            yield b"".join(row["output"] for row in rows)

    async def end(self, id_: str, **fields: Any) -> None:
        """Makes the last change of a batch, and forgets what was kept for its files."""
        assignments = ", ".join(f"{name} = ?" for name in fields)

        def write(db: sqlite3.Connection) -> None:
            db.execute(f"UPDATE batches SET {assignments} WHERE id = ?", (*fields.values(), id_))  # noqa: S608 (columns, by name)
            db.execute("DELETE FROM results WHERE batch = ?", (id_,))

        await self._run(write)
        with storage_faults():
            await asyncio.to_thread(self.input_path(id_).unlink, missing_ok=True)

    async def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        opened = await self._open()
        with storage_faults():
            return await opened.database.run(work)

    async def _open(self) -> _Opened:
        if self._opened is None:
            async with self._opening:
                if self._opened is None:
                    with storage_faults():
                        database, lock, last = await asyncio.to_thread(self._open_blocking)
                    self._opened = _Opened(database, Identifiers(_PREFIX, last=last), lock)
        return self._opened

    def _open_blocking(self) -> tuple[Database, DirectoryLock, str]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_directory(self.root, self._group)
        try:
            standing = _standing(self.root / "batches.db")
            if lock.alone:
                self._sweep({id_ for id_, status in standing.items() if status in UNFINISHED})
            database = Database(self.root / "batches.db", _SCHEMA)
            lock.share()
        except BaseException:
            lock.release()
            raise
        return database, lock, max(standing, default="")

    def _sweep(self, under_way: set[str]) -> None:
        """Removes inputs that a crash has left over."""
        for path in self.root.glob("*.jsonl"):
            if path.stem not in under_way:
                path.unlink()


def _standing(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        return dict(connection.execute("SELECT id, status FROM batches").fetchall())
    finally:
        connection.close()


def _outputs(db: sqlite3.Connection, asked: tuple[Any, ...]) -> Sequence[sqlite3.Row]:
    statement = "SELECT line, output FROM results WHERE batch = ? AND ok = ? AND line > ? ORDER BY line LIMIT ?"
    return db.execute(statement, asked).fetchall()
