"""One file on its way in: gathered into large pieces, written in threads, and bounded."""

from collections.abc import Awaitable, Callable
from typing import Any, Self

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.files.blobs import Blobs
from gateway.files.incoming import Incoming

_GATHERED_BYTES = 1024 * 1024


class Upload:
    """A file that is being taken. It is an async context manager, which discards whatever has not been published.

    Attributes:
        bytes: How much has come.
    """

    def __init__(self, incoming: Incoming, in_thread: Callable[..., Awaitable[Any]], max_bytes: int) -> None:
        """Makes an upload.

        Args:
            incoming: Where the bytes go.
            in_thread: Calls a function that blocks.
            max_bytes: Most bytes that are taken.
        """
        self.bytes = 0
        self._incoming = incoming
        self._in_thread = in_thread
        self._max_bytes = max_bytes
        self._gathered = bytearray()

    async def write(self, data: bytes) -> None:
        """Adds bytes.

        Raises:
            GatewayError: PAYLOAD_TOO_LARGE above the limit; else what a disk's faults are.
        """
        self.bytes += len(data)
        if self.bytes > self._max_bytes:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
                f"The file is larger than the {self._max_bytes} bytes that this gateway takes (server.max_upload_bytes).",
                param="file",
            )
        self._gathered += data
        if len(self._gathered) >= _GATHERED_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Writes what has been gathered."""
        gathered, self._gathered = self._gathered, bytearray()
        if gathered:
            await self._in_thread(self._incoming.write, gathered)

    async def read(self, offset: int, length: int) -> bytes:
        """Returns up to so many bytes from there, of what was flushed; none at their end."""
        data: bytes = await self._in_thread(self._incoming.read, offset, length)
        return data

    def publish(self, blobs: Blobs, name: str) -> None:
        """Gives the bytes their place. It blocks, as all of `blobs` does."""
        blobs.publish(self._incoming, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._in_thread(self._incoming.discard)
