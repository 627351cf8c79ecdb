"""Trailing headers of a request's body in chunks, which aiohttp's parser drops: they are found in the last bytes that came in.

Below is `bridge.server`, whose connections keep those bytes. Above is `bridge.routes.proxy`, which passes the trailers on.
"""

import re
from typing import Final, Protocol

TAIL_BYTES: Final = 16 * 1024
"""How much is kept of a body whose trailers are wanted."""

_LAST_CHUNK: Final = re.compile(rb"0+[ \t]*(?:;.*)?")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class KeepsTail(Protocol):
    """A connection that keeps the end of what came in.

    Attributes:
        tail: The last bytes.
        tail_bytes: How many are wanted; 0 for a part of the last read alone.
    """

    tail: bytes
    tail_bytes: int


def trailers_in(tail: bytes) -> list[tuple[str, bytes]]:
    """Returns the trailers at the end of a body in chunks, in order.

    They are the lines after the last chunk's, which is the last line that is no header. Those that are too long are left out whole.
    """
    lines = tail.split(b"\r\n")
    found: list[tuple[str, bytes]] = []
    for line in reversed(lines[:-2]):
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            return found[::-1] if _LAST_CHUNK.fullmatch(line) else []
        found.append((name.decode("ascii"), value.strip(b" \t")))
    return []
