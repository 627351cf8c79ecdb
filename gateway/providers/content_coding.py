"""Content codings of provider answers: compressed bytes go in, the body comes out.

Below is zlib. Above is `gateway.providers.upstream`. aiohttp could do this too, but it takes a gzip body that was cut short for a
whole one, and undoes a whole answer at a time without a bound.

The sender asks for no compression, so this is for providers, and proxies before them, that compress anyway.
"""

import zlib
from typing import Final

MAX_OUTPUT_BYTES: Final = 256 * 1024
"""The most that one call gives out, so that a few bytes that unpack to gigabytes are read in bounded steps."""

_MAX_MEMBERS: Final = 1024
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS


class ContentCodingError(Exception):
    """A body that is not what its Content-Encoding says, or in a coding that is not known. Its text says which."""


class ContentDecoder:
    """Undoes one gzip or deflate coding, in bounded steps.

    Args:
        coding: The value of Content-Encoding.

    Raises:
        ContentCodingError: If the coding is neither gzip nor deflate.
    """

    __slots__ = ("_coding", "_inflater", "_input", "_members", "pending")

    def __init__(self, coding: str) -> None:
        coding = coding.strip().lower()
        if coding not in {"gzip", "x-gzip", "deflate"}:
            raise ContentCodingError("packed its answer in neither gzip nor deflate, and was not asked to. Turn that off there.")
        self._coding = coding
        self._inflater: zlib._Decompress | None = None
        self._input = b""
        self._members = 0
        self.pending = False
        """Whether `decode(b"")` has more to give out, before any further input."""

    def decode(self, data: bytes) -> bytes:
        """Returns what `data`, after what is pending, unpacks to: at most MAX_OUTPUT_BYTES, and possibly nothing.

        Raises:
            ContentCodingError: If the bytes are not in the coding.
        """
        data = self._input + data
        self._input = b""
        inflater = self._inflater
        if inflater is None or inflater.eof:
            # A member has ended, and another may follow (RFC 1952, section 2.2). Zeros after the last one are padding.
            if not data or (inflater is not None and not data.strip(b"\0")):
                self.pending = False
                return b""
            inflater = self._inflater = self._begin(data)
        try:
            output = inflater.decompress(data, MAX_OUTPUT_BYTES)
        except zlib.error as error:
            raise ContentCodingError("sent a compressed answer that is damaged. Try again.") from error
        self._input = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        # zlib may hold back output of input that it has taken already, once the output is as long as was asked for.
        self.pending = bool(self._input) or (len(output) == MAX_OUTPUT_BYTES and not inflater.eof)
        return output

    def finish(self) -> None:
        """Checks that the body did not end in the middle.

        Raises:
            ContentCodingError: If it did.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise ContentCodingError("broke off its compressed answer before the end. Try again.")

    def _begin(self, data: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise ContentCodingError(f"sent a compressed answer of more than {_MAX_MEMBERS} members. Try again.")
        if self._coding != "deflate":
            return zlib.decompressobj(_GZIP_WBITS)
        # "deflate" means the zlib format (RFC 9110, section 8.4.1.2), whose first byte ends in 8. Some servers send the raw one.
        return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
