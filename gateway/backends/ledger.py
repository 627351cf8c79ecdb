"""The ledger: which key made what at a provider, and what the provider last said of it.

A provider knows one credential, the gateway's; whose a file is among the gateway's own keys stands only here. What was made past
the gateway is not here, so no key can reach it. Above are the files and batches of a provider, and responses, be they a provider's
or the gateway's own; below is `gateway.database`.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.database import Database
from gateway.errors import GatewayError
from gateway.files.directory_lock import DirectoryLock, lock_directory
from gateway.files.faults import storage_faults
from gateway.files.incoming import Incoming, IncomingDirectory

T = TypeVar("T")

ObjectId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,255}\Z")]
"""What a provider may call a thing."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, provider TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL,
    purpose TEXT NOT NULL, expires_at INTEGER, body BLOB NOT NULL, UNIQUE (provider, kind, id)
) STRICT;
CREATE INDEX IF NOT EXISTS objects_by_owner ON objects (provider, kind, owner, number);
CREATE INDEX IF NOT EXISTS objects_by_id ON objects (id, kind);
CREATE INDEX IF NOT EXISTS objects_by_expiry ON objects (kind, expires_at) WHERE expires_at IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a key has made at a provider.

    Attributes:
        kind: What it is: `file`, `batch` or `response`.
        provider: Who keeps it; empty for the gateway itself.
        id: What the provider calls it.
        owner: The name of the key that made it.
        purpose: What a file is for; empty for what is none.
        expires_at: When it ceases to be, in seconds since 1970; None if it does not, or nobody said.
        body: What the provider last said of it, as JSON.
    """

    kind: str
    provider: str
    id: str
    owner: str
    purpose: str
    expires_at: int | None
    body: bytes


@dataclass(frozen=True, slots=True)
class _Opened:
    database: Database
    lock: DirectoryLock
    outgoing: IncomingDirectory


class Ledger:
    """Keeps entries below one directory. It is opened by its first use.

    Every method raises a `GatewayError` if the directory cannot be used or has no room.
    """

    def __init__(self, root: Path, group: str = "") -> None:
        """Makes a ledger in this directory; `group` names the processes that keep it together, and is empty for one by itself."""
        self._root = root
        self._group = group
        self._opening = asyncio.Lock()
        self._opened: _Opened | None = None

    async def close(self) -> None:
        """Closes the ledger. Idempotent."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.database.close()
            opened.lock.release()

    async def begin(self) -> Incoming:
        """Returns a place on disk for what is on its way to a provider. It must be discarded."""
        opened = await self._open()
        with storage_faults():
            return await asyncio.to_thread(opened.outgoing.begin)

    async def note(self, entry: Entry) -> None:
        """Adds an entry, or notes what the provider says of it now. Its owner stays who it was."""
        await self._run(
            lambda db: (
                db.execute(
                    "INSERT INTO objects (kind, provider, id, owner, purpose, expires_at, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (provider, kind, id) DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at",
                    (entry.kind, entry.provider, entry.id, entry.owner, entry.purpose, entry.expires_at, entry.body),
                ).rowcount
            )
        )

    async def get(self, kind: str, provider: str, id_: str, owner: str | None) -> Entry | None:
        """Returns an entry; with an owner, only if it is that key's; None if there is none."""
        row = await self._run(
            lambda db: db.execute(
                "SELECT kind, provider, id, owner, purpose, expires_at, body FROM objects"
                " WHERE provider = ? AND kind = ? AND id = ? AND (?4 IS NULL OR owner = ?4)",
                (provider, kind, id_, owner),
            ).fetchone()
        )
        return Entry(*row) if row is not None else None

    async def find(self, kind: str, id_: str, owner: str | None) -> Entry | None:
        """Returns an entry whoever the provider is, the newest if there are several; else as `get` does."""
        row = await self._run(
            lambda db: db.execute(
                "SELECT kind, provider, id, owner, purpose, expires_at, body FROM objects"
                " WHERE kind = ? AND id = ? AND (?3 IS NULL OR owner = ?3) ORDER BY number DESC LIMIT 1",
                (kind, id_, owner),
            ).fetchone()
        )
        return Entry(*row) if row is not None else None

    async def forget_expired(self, kind: str, now: int) -> None:
        """Removes the entries of a kind that have expired."""
        await self._run(lambda db: db.execute("DELETE FROM objects WHERE kind = ? AND expires_at <= ?", (kind, now)).rowcount)

    async def list(
        self,
        kind: str,
        provider: str,
        owner: str | None,
        *,
        limit: int,
        after: str = "",
        purpose: str = "",
        ascending: bool = False,
    ) -> tuple[list[Entry], bool]:
        """Returns entries in the order in which they were made, and whether there are more.

        Args:
            kind: Only those of this kind.
            provider: Only those that this provider keeps.
            owner: Whose; None for everyone's.
            limit: Most entries to return.
            after: The id of the entry to begin after; empty for the first page.
            purpose: Only those for this; empty for all.
            ascending: Whether the oldest come first.

        Raises:
            GatewayError: `after` is nothing that this owner has.
        """
        start = 0
        if after:
            found = await self._run(
                lambda db: db.execute(
                    "SELECT number FROM objects WHERE provider = ? AND kind = ? AND id = ? AND (?4 IS NULL OR owner = ?4)",
                    (provider, kind, after, owner),
                ).fetchone()
            )
            if found is None:
                raise GatewayError(
                    ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'after' must be the id of a {kind} of yours.", param="after"
                )
            start = found["number"]
        order, beyond = ("ASC", ">") if ascending else ("DESC", "<")
        statement = (
            "SELECT kind, provider, id, owner, purpose, expires_at, body FROM objects"  # noqa: S608 (nothing of a caller's is in it)
            " WHERE provider = ? AND kind = ? AND (?3 IS NULL OR owner = ?3) AND (?4 = '' OR purpose = ?4)"
            f" AND (?5 = 0 OR number {beyond} ?5) ORDER BY number {order} LIMIT ?6"
        )
        rows = await self._run(lambda db: db.execute(statement, (provider, kind, owner, purpose, start, limit + 1)).fetchall())
        return [Entry(*row) for row in rows[:limit]], len(rows) > limit

    async def forget(self, kind: str, provider: str, id_: str) -> None:
        """Removes an entry; nothing happens if there is none."""
        await self._run(
            lambda db: db.execute("DELETE FROM objects WHERE provider = ? AND kind = ? AND id = ?", (provider, kind, id_)).rowcount
        )

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        opened = await self._open()
        with storage_faults():
            return await opened.database.run(work)

    async def _open(self) -> _Opened:
        if self._opened is not None:
            return self._opened
        async with self._opening:
            if self._opened is None:
                with storage_faults():
                    self._opened = await asyncio.to_thread(self._open_blocking)
            return self._opened

    def _open_blocking(self) -> _Opened:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_directory(self._root, self._group)
        try:
            outgoing = IncomingDirectory(self._root / "outgoing")
            if lock.alone:
                outgoing.sweep()
            database = Database(self._root / "objects.db", _SCHEMA)
            lock.share()
        except BaseException:
            lock.release()
            raise
        return _Opened(database, lock, outgoing)
