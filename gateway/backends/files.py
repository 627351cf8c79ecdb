"""Files that a provider keeps. They are reached like the gateway's own, by the key that made them and by nobody else.

An upload is taken to disk before it is sent on: its description may come after its content, the provider is told its length, and
a client that breaks off leaves nothing at the provider. Above is the files service; below are the ledger and the provider's
resources.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec
import orjson
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.backends import ledger
from gateway.backends.ledger import Ledger, ObjectId
from gateway.backends.resources import Body, Resources
from gateway.errors import GatewayError
from gateway.files.description import BATCH_OUTPUT, Description
from gateway.files.faults import storage_faults
from gateway.files.store import PIECE_BYTES, Entry
from gateway.files.upload import Upload
from gateway.providers import form_data

KIND: Final = "file"
_ID_SHOWN: Final = 64


class _File(msgspec.Struct):
    """A file as the provider shows it: https://platform.openai.com/docs/api-reference/files/object."""

    id: ObjectId
    bytes: int = 0
    created_at: int = 0
    expires_at: int | None = None
    filename: str = ""
    purpose: str = ""


_FILE: Final = msgspec.json.Decoder(_File)


class ProviderFiles:
    """The files of one provider, on behalf of one caller."""

    provider = True

    def __init__(self, resources: Resources, entries: Ledger, slots: asyncio.Semaphore, most_bytes: Callable[[], int]) -> None:
        """Makes what reaches them.

        Args:
            resources: Asks the provider.
            entries: Who made what there.
            slots: How many uploads may go to the provider at a time.
            most_bytes: Returns how long a file may be.
        """
        self._resources = resources
        self._entries = entries
        self._slots = slots
        self._most_bytes = most_bytes

    async def begin(self) -> Upload:
        """Begins to take a file; see `FileStore.begin`."""
        return Upload(await self._entries.begin(), _in_thread, self._most_bytes())

    async def commit(self, upload: Upload, owner: str, description: Description) -> Entry:
        """Sends a file to the provider, and returns it once the provider has it.

        Raises:
            GatewayError: The provider does not take it.
        """
        await upload.flush()
        async with self._slots:
            answer = await self._resources.ask("POST", "/files", _form(upload, description))
        return await self._noted(answer, owner)

    async def list(self, owner: str | None, *, purpose: str, limit: int, after: str, ascending: bool) -> tuple[list[Entry], bool]:
        """Returns files in the order in which they were made, and whether there are more; see `FileStore.list`."""
        entries, more = await self._entries.list(
            KIND, self._name, owner, limit=limit, after=after, purpose=purpose, ascending=ascending
        )
        return [_entry(entry.body, entry.owner, self._name) for entry in entries], more

    async def get(self, id: str, owner: str | None) -> Entry:  # noqa: A002 (it is one)
        """Returns what the provider says of a file now.

        Raises:
            GatewayError: NOT_FOUND: there is none, or it is somebody else's; or the provider's own error.
        """
        known = await self._known(id, owner)
        try:
            answer = await self._resources.ask("GET", _path(id))
        except GatewayError as error:
            await self._forget_if_gone(id, error)
            raise
        return await self._noted(answer, known.owner)

    async def delete(self, id: str, owner: str | None) -> None:  # noqa: A002 (it is one)
        """Deletes a file at the provider. The arguments are those of `get`, and so is what it raises."""
        await self._known(id, owner)
        try:
            await self._resources.ask("DELETE", _path(id))
        except GatewayError as error:
            await self._forget_if_gone(id, error)
            raise
        await self._entries.forget(KIND, self._name, id)

    async def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Gives what a file holds, piece by piece, as it comes; see `FileStore.read`."""
        end = entry.bytes if length is None else min(entry.bytes, offset + length)
        part = {} if offset == 0 and end == entry.bytes else {"Range": f"bytes={offset}-{end - 1}"}
        if part and end <= offset:
            return
        async with self._resources.open("GET", f"{_path(entry.id)}/content", headers=part) as exchange:
            # A provider that knows no ranges answers with all of it.
            passed_over, left = (offset, end - offset) if part and exchange.status == 200 else (0, end - offset)
            while piece := await exchange.next_piece():
                if passed_over:
                    passed_over, piece = max(0, passed_over - len(piece)), piece[passed_over:]
                if part:
                    piece = piece[:left]
                    left -= len(piece)
                if piece:
                    yield piece
                if part and not left:
                    return

    async def adopt(self, id_: str, owner: str) -> None:
        """Gives a key a file that the provider has made for it."""
        try:
            answer = await self._resources.ask("GET", _path(id_))
        except GatewayError:  # what the file is can be learnt later
            answer = orjson.dumps({"id": id_, "purpose": BATCH_OUTPUT})
        await self._noted(answer, owner)

    @property
    def _name(self) -> str:
        return self._resources.provider.name

    async def _known(self, id_: str, owner: str | None) -> ledger.Entry:
        found = await self._entries.get(KIND, self._name, id_, owner)
        if found is None:
            raise no_such_file(id_, "id")
        return found

    async def _noted(self, answer: bytes, owner: str) -> Entry:
        entry = _entry(answer, owner, self._name)
        await self._entries.note(ledger.Entry(KIND, self._name, entry.id, owner, entry.purpose, entry.expires_at, answer))
        return entry

    async def _forget_if_gone(self, id_: str, error: GatewayError) -> None:
        """A file that the provider has no more, because it expired or was deleted past the gateway, is nobody's any more."""
        if error.upstream is not None and error.upstream.status in {404, 410}:
            await self._entries.forget(KIND, self._name, id_)


def no_such_file(id_: str, param: str) -> GatewayError:
    """Returns the error for whoever asks for a file that is not there, or somebody else's."""
    return GatewayError(
        ErrorKind.ERROR_KIND_NOT_FOUND, f"There is no file '{id_[:_ID_SHOWN]}'. GET /v1/files lists yours.", param=param
    )


def _path(id_: str) -> str:
    return f"/files/{quote(id_, safe='')}"


def _entry(body: bytes, owner: str, provider: str) -> Entry:
    try:
        file = _FILE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise GatewayError(
            ErrorKind.ERROR_KIND_PROVIDER_ERROR,
            f"The provider '{provider}' answered with something that is no file.",
            provider=provider,
        ) from None
    return Entry(file.id, owner, file.bytes, file.created_at, file.expires_at, file.filename, file.purpose)


def _form(upload: Upload, description: Description) -> Body:
    """Returns the form that uploads a file: https://platform.openai.com/docs/api-reference/files/create."""
    boundary = secrets.token_hex(16)
    fields = {"purpose": description.purpose}
    if description.seconds is not None:
        fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(description.seconds)}
    head = b"".join(form_data.field_part(boundary, name, value) for name, value in fields.items())
    head += form_data.file_part(boundary, "file", description.filename, "application/octet-stream")
    tail = b"\r\n" + form_data.end(boundary)

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        offset = 0
        while piece := await upload.read(offset, PIECE_BYTES):
            offset += len(piece)
            yield piece
        yield tail

    return Body(f"multipart/form-data; boundary={boundary}", len(head) + upload.bytes + len(tail), pieces())


async def _in_thread(work: Callable[..., Any], *args: Any) -> Any:
    with storage_faults():
        return await asyncio.to_thread(partial(work, *args))
