"""The `Range` header: which part of a body a client wants. Source: https://www.rfc-editor.org/rfc/rfc9110#section-14."""

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a body.

    Attributes:
        first: The first byte's number.
        last: The last byte's number.
    """

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes it is."""
        return self.last - self.first + 1


class UnsatisfiableError(Exception):
    """No byte of the body is in the range."""


def wanted(header: str, size: int) -> Range | None:
    """Returns the part that a client wants; None for the whole, as also with several ranges at once and with what is no range.

    Args:
        header: The header's value.
        size: The body's size in bytes.

    Raises:
        UnsatisfiableError: It wants a part that there is not.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        length = int(match[2])
        if length == 0 or size == 0:
            raise UnsatisfiableError
        return Range(max(0, size - length), size - 1)
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise UnsatisfiableError
    return Range(first, min(last, size - 1))
