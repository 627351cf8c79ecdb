"""A batch, and where it stands. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

_WINDOW = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_WINDOW_SECONDS = 30 * 86_400


class Status(StrEnum):
    """Where a batch stands; the names are OpenAI's."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


UNFINISHED = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)
"""Where a batch stands that has something left to be done."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a batch's input.

    Attributes:
        code: A word for it.
        message: A sentence.
        line: The line's number, from 1; None if it is not about one.
        param: The field at fault; None if it is not about one.
    """

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it is stored. Times are seconds since 1970.

    Attributes:
        id: Its name at the gateway.
        owner: The name of the key that made it.
        endpoint: The route of its lines.
        input_file_id: The file with its lines.
        completion_window: How long it may take, as it was said.
        metadata: What the caller noted with it, as JSON.
        output_seconds: After how many seconds its output files cease to be; None for never.
        status: Where it stands.
        ending: Where it will stand once its files are written; empty until that is known.
        output_reserved: The id that its output file gets; empty until it ends.
        error_reserved: The same of its error file.
        output_file_id: Its output file, once it has ended and if there is one.
        error_file_id: The same of its error file.
        errors: What is wrong with its input, as JSON.
        total: How many lines it has.
        completed: How many were answered with success.
        failed: How many were answered with a failure.
        created_at: When it was made.
        expires_at: When its window ends.
        in_progress_at: When its lines were begun.
        finalizing_at: When its last line was answered.
        completed_at: When it was done.
        failed_at: When its input turned out to be wrong.
        expired_at: When it was given up because its window had ended.
        cancelling_at: When somebody asked to stop it.
        cancelled_at: When it had stopped.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: str
    output_seconds: int | None
    created_at: int
    expires_at: int
    status: str = Status.VALIDATING
    ending: str = ""
    output_reserved: str = ""
    error_reserved: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: str = "[]"
    total: int = 0
    completed: int = 0
    failed: int = 0
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None


def window_seconds(text: str) -> int:
    """Returns the length of a completion window.

    Raises:
        GatewayError: It is none.
    """
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= _LONGEST_WINDOW_SECONDS:
        raise GatewayError(
            ErrorKind.ERROR_KIND_INVALID_REQUEST,
            "'completion_window' must be a number with s, m, h or d, of 30 days at most, such as '24h'.",
            param="completion_window",
        )
    return seconds
