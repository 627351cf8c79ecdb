"""The store of files, with a clock of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.files.description import Description
from gateway.files.store import PIECE_BYTES, Entry, FileStore
from tests.waiting import until

NOW = 1_700_000_000
LIMIT = 500_000


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Callable[[], FileStore]:
    return lambda: FileStore(tmp_path / "files", lambda: LIMIT, clock=clock)


@pytest.fixture
async def store(opened: Callable[[], FileStore]) -> AsyncIterator[FileStore]:
    made = opened()
    yield made
    await made.close()


async def put(store: FileStore, content: bytes = b"content", owner: str = "ann", seconds: int | None = None) -> Entry:
    async with await store.begin() as upload:
        await upload.write(content)
        return await store.commit(upload, owner, Description("name", "batch", seconds))


async def content(store: FileStore, entry: Entry) -> bytes:
    return b"".join([piece async for piece in store.read(entry)])


async def test_a_store_that_nobody_uses_leaves_no_trace(store: FileStore) -> None:
    assert not store.exists
    assert not store.root.exists()


async def test_a_file_that_has_expired_is_gone_and_so_are_its_bytes(opened: Callable[[], FileStore], clock: Clock) -> None:
    store = opened()
    short, long = await put(store, seconds=3600), await put(store, seconds=7200)
    assert (short.created_at, short.expires_at) == (NOW, NOW + 3600)
    clock.now += 3600
    with pytest.raises(GatewayError) as raised:
        await store.get(short.id, None)
    assert raised.value.kind == ErrorKind.ERROR_KIND_NOT_FOUND
    entries, more = await store.list(None, purpose="", limit=10, after="", ascending=True)
    assert (entries, more) == ([long], False)
    await store.close()
    again = opened()
    await again.open()
    await until(lambda: len(list((again.root / "blobs").iterdir())) == 1)
    assert await content(again, long) == b"content"
    await again.close()


async def test_leftovers_are_swept_and_files_stay(opened: Callable[[], FileStore]) -> None:
    store = opened()
    kept = await put(store)
    await store.close()
    (store.root / "incoming/half").write_bytes(b"half an upload")
    (store.root / "blobs/file-without-entry").write_bytes(b"moved, and then the power failed")
    again = opened()
    assert again.exists
    await again.open()
    assert [path.name for path in (again.root / "blobs").iterdir()] == [kept.id]
    assert list((again.root / "incoming").iterdir()) == []
    assert await again.get(kept.id, "ann") == kept
    assert await content(again, kept) == b"content"
    await again.close()


async def test_an_upload_that_is_abandoned_or_too_large_leaves_nothing(store: FileStore) -> None:
    with pytest.raises(GatewayError) as raised:
        await put(store, b"x" * (LIMIT + 1))
    assert raised.value.kind == ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE
    task = asyncio.create_task(put(store))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    for directory in ("incoming", "blobs"):
        assert list((store.root / directory).iterdir()) == []
    assert await put(store, b"x" * LIMIT)


async def test_a_file_is_read_on_after_it_was_deleted(store: FileStore) -> None:
    entry = await put(store, b"x" * PIECE_BYTES + b"y")
    pieces = store.read(entry)
    assert await anext(pieces) == b"x" * PIECE_BYTES
    await store.delete(entry.id, None)
    assert [piece async for piece in pieces] == [b"y"]
    await pieces.aclose()
    with pytest.raises(GatewayError) as raised:
        await content(store, entry)
    assert raised.value.kind == ErrorKind.ERROR_KIND_NOT_FOUND


async def test_a_link_outlives_its_file(store: FileStore, tmp_path: Path) -> None:
    entry = await put(store)
    for _ in range(2):
        await store.link(entry, tmp_path / "linked")
    await store.delete(entry.id, None)
    assert (tmp_path / "linked").read_bytes() == b"content"


async def test_a_directory_serves_one_process_at_a_time(store: FileStore, opened: Callable[[], FileStore]) -> None:
    entry = await put(store)
    other = opened()
    with pytest.raises(GatewayError) as raised:
        await other.open()
    assert raised.value.kind == ErrorKind.ERROR_KIND_NOT_CONFIGURED
    await store.close()
    assert await other.get(entry.id, None) == entry
    await other.close()
