"""What a file may be called, what it may be for, and how long it may stay. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from twinspan.v1 import files_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

BATCH = "batch"
BATCH_OUTPUT = "batch_output"
PURPOSES = ("assistants", BATCH, "fine-tune", "vision", "user_data", "evals")
"""What an uploaded file may be for. The gateway itself makes files of purpose `batch_output`."""

_DAY_SECONDS = 86_400
_DEFAULT_SECONDS: Mapping[str, int] = {BATCH: 30 * _DAY_SECONDS}
_LEAST_SECONDS, _MOST_SECONDS = 3600, 30 * _DAY_SECONDS
_LONGEST_NAME, _LONGEST_PURPOSE = 255, 64


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a file.

    Attributes:
        filename: The name that its uploader gave it.
        purpose: What it is for.
        seconds: After how many seconds it ceases to be; None for never.
    """

    filename: str
    purpose: str
    seconds: int | None = None

    @classmethod
    def of(cls, given: files_pb2.FileDescription, *, provider: bool) -> Self:
        """Returns what an uploader says of a file.

        Args:
            given: What is said.
            provider: Whether a provider keeps the file, which knows by itself what it may be for and how long it stays.

        Raises:
            GatewayError: It is nothing that can be said.
        """
        if not provider and given.purpose not in PURPOSES:
            raise _invalid("purpose", f"must be one of {', '.join(PURPOSES)}")
        if not 1 <= len(given.purpose) <= _LONGEST_PURPOSE or not given.purpose.isprintable():
            raise _invalid("purpose", "must be given")
        name = given.filename
        if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
            raise _invalid("file", f"must have a name of 1 to {_LONGEST_NAME} printable characters")
        if provider:
            return cls(name, given.purpose, given.expires_after_seconds if given.HasField("expires_after_seconds") else None)
        if not given.HasField("expires_after_seconds"):
            return cls(name, given.purpose, _DEFAULT_SECONDS.get(given.purpose))
        return cls(name, given.purpose, lifetime_seconds(given.expires_after_seconds, "expires_after"))


def lifetime_seconds(seconds: int, param: str) -> int:
    """Returns how long a file may stay.

    Raises:
        GatewayError: It is too short or too long; `param` is where it was said.
    """
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise _invalid(f"{param}[seconds]", f"must be between {_LEAST_SECONDS} and {_MOST_SECONDS}")
    return seconds


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
