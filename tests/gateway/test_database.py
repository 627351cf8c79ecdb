"""A database in a thread of its own."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.database import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY) STRICT"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "db", SCHEMA)
    yield opened
    await opened.close()


async def numbers(database: Database) -> list[int]:
    return [row[0] for row in await database.run(lambda db: db.execute("SELECT number FROM numbers ORDER BY number").fetchall())]


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount


async def test_many_changes_at_once_all_count(database: Database) -> None:
    results = await asyncio.gather(*(database.run(insert(number)) for number in range(1000)))
    assert results == [1] * 1000
    assert await numbers(database) == list(range(1000))


async def test_a_function_that_fails_is_undone_alone(database: Database) -> None:
    def fails(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (7)")
        raise KeyError("fault")

    outcomes = await asyncio.gather(
        database.run(insert(1)),
        database.run(fails),
        database.run(insert(1)),
        database.run(insert(2)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [int, KeyError, sqlite3.IntegrityError, int]
    assert await numbers(database) == [1, 2]


async def test_what_was_handed_over_is_done_before_the_close(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SCHEMA)
    pending = [asyncio.create_task(database.run(insert(number))) for number in range(300)]
    await asyncio.sleep(0)
    await database.close()
    await database.close()
    assert await asyncio.gather(*pending) == [1] * 300
    again = Database(tmp_path / "db", SCHEMA)
    assert len(await numbers(again)) == 300
    await again.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"something else" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Database(tmp_path / "db", SCHEMA)
