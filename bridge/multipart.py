"""Reads `multipart/form-data` as it comes, a part at a time, at flat memory.

A file's bytes are given on as they arrive; of everything else there is a bound on how much is kept: a boundary, the headers of a
part, the value of a field, the number of parts. Above it: the routes that take uploads. Source: https://www.rfc-editor.org/rfc/rfc7578.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol
from urllib.parse import unquote

from aiohttp import ClientPayloadError, web
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.errors import BridgeError

_MOST_PARTS = 64
_MOST_HEADER_BYTES = 8 * 1024
_MOST_FIELD_BYTES = 64 * 1024
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;\s]*)')


class Source(Protocol):
    """Where a body comes from: aiohttp's `StreamReader`."""

    async def readany(self) -> bytes:
        """Returns the next bytes; none at the end."""


class Part:
    """One part of a form.

    Attributes:
        name: The field's name.
        filename: The file's name; None if the part is no file.
        content_type: What the part says it is; empty if it does not say.
    """

    def __init__(self, name: str, filename: str | None, content_type: str, pieces: AsyncGenerator[bytes, None]) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Gives the part's bytes as they come. What is not read is passed over with the next part."""
        return self._pieces

    async def text(self) -> str:
        """Returns the value of a field.

        Raises:
            BridgeError: It is too long, or no text.
        """
        value = bytearray()
        async for piece in self._pieces:
            value += piece
            if len(value) > _MOST_FIELD_BYTES:
                raise malformed(f"the field '{self.name}' is longer than {_MOST_FIELD_BYTES} bytes", self.name)
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise malformed(f"the field '{self.name}' is not valid UTF-8", self.name) from None


class Form:
    """A form that is being read, once and in order."""

    def __init__(self, content_type: str, source: Source) -> None:
        """Makes a reader.

        Args:
            content_type: The body's `Content-Type`.
            source: The body.

        Raises:
            BridgeError: The body is no form, or does not say how its parts are told apart.
        """
        kind, semicolon, parameters = content_type.partition(";")
        if kind.strip().lower() != "multipart/form-data":
            raise malformed("its Content-Type must be multipart/form-data")
        boundary = _parameters(semicolon + parameters).get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise malformed("its Content-Type must give a boundary of 1 to 70 characters")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._source = source
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like all others

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Gives the parts in order.

        Raises:
            BridgeError: The form is malformed, has too many parts, or ends before it is whole.
        """
        async for _ in self._until_delimiter():  # what stands before the first part means nothing
            raise malformed("it does not begin with its boundary")
        for _ in range(_MOST_PARTS):
            if await self._is_last():
                return
            part = _described(await self._headers(), self._until_delimiter())
            try:
                yield part
                async for _ in part:
                    pass
            finally:
                await part._pieces.aclose()  # noqa: SLF001 (the part is this module's own)
        raise malformed(f"it has more than {_MOST_PARTS} parts")

    async def _until_delimiter(self) -> AsyncGenerator[bytes, None]:
        """Gives what stands before the next delimiter, and passes over the delimiter."""
        buffer, delimiter = self._buffer, self._delimiter
        while (place := buffer.find(delimiter)) < 0:
            safe = len(buffer) - len(delimiter) + 1  # what follows may be the delimiter's beginning
            if safe > 0:
                piece = bytes(memoryview(buffer)[:safe])
                del buffer[:safe]
                yield piece
            await self._fill()
        piece = bytes(memoryview(buffer)[:place])
        del buffer[: place + len(delimiter)]
        if piece:
            yield piece

    async def _is_last(self) -> bool:
        """Reads what follows a delimiter, and tells whether it was the last one."""
        buffer = self._buffer
        while len(buffer) < 2:
            await self._fill()
        if buffer.startswith(b"--"):
            return True
        while (end := buffer.find(b"\r\n")) < 0 and len(buffer) <= _MOST_HEADER_BYTES:
            await self._fill()
        if end < 0 or buffer[:end].strip(b" \t"):
            raise malformed("something other than a line's end follows a boundary")
        del buffer[:end]  # the line's end stays, so that a part without headers looks like all others
        return False

    async def _headers(self) -> dict[str, str]:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > _MOST_HEADER_BYTES:
                raise malformed(f"the headers of a part are longer than {_MOST_HEADER_BYTES} bytes")
            await self._fill()
        if end > _MOST_HEADER_BYTES:
            raise malformed(f"the headers of a part are longer than {_MOST_HEADER_BYTES} bytes")
        text = bytes(memoryview(buffer)[:end]).decode("utf-8", "replace")
        del buffer[: end + 4]
        headers: dict[str, str] = {}
        for line in text.split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise malformed("a part has a header without a colon")
            headers[name.strip().lower()] = value.strip()
        return headers

    async def _fill(self) -> None:
        try:
            data = await self._source.readany()
        except (ClientPayloadError, web.RequestPayloadError) as error:
            raise malformed("the body ended before it was whole") from error
        if not data:
            raise malformed("the body ended before it was whole")
        self._buffer += data


def malformed(what: str, param: str | None = None) -> BridgeError:
    """Returns the error of a form that cannot be read."""
    return BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"The form cannot be read: {what}.", param=param)


def _described(headers: dict[str, str], pieces: AsyncGenerator[bytes, None]) -> Part:
    disposition, semicolon, rest = headers.get("content-disposition", "").partition(";")
    parameters = _parameters(semicolon + rest)
    name = parameters.get("name")
    if disposition.strip().lower() != "form-data" or name is None:
        raise malformed("a part does not say which field it is (Content-Disposition: form-data; name=...)")
    if headers.get("content-transfer-encoding", "binary").lower() not in {"binary", "8bit", "7bit"}:
        raise malformed(f"the field '{name[:64]}' has a Content-Transfer-Encoding, which forms over HTTP do not have", name[:64])
    return Part(name, parameters.get("filename"), headers.get("content-type", ""), pieces)


def _parameters(text: str) -> dict[str, str]:
    """Returns the parameters of a header's value; of one that is given twice, the first."""
    found: dict[str, str] = {}
    for name, value in _PARAMETER.findall(text):
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        name = name.lower()
        if name == "filename*":
            charset, _, encoded = value.partition("'")
            if charset.lower() == "utf-8":
                found["filename"] = unquote(encoded.partition("'")[2])
        else:
            found.setdefault(name, value)
    return found
