"""The lines of a batch: what they must be, who answers them, and what is written of it.

Source: https://platform.openai.com/docs/api-reference/batch/request-input and the pages after it.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import orjson
from msgspec import Raw

_READ_BYTES = 256 * 1024
_LONGEST_ID = 512
_LINE_ENDS_TO_BLANKS = bytes.maketrans(b"\r\n", b"  ")
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class Answer(Protocol):
    """What came of a line."""

    @property
    def status(self) -> int:
        """The HTTP status that the request would have had."""

    @property
    def request_id(self) -> str:
        """The request's id, as in logs."""

    @property
    def body(self) -> bytes:
        """The JSON that the request would have been answered with."""

    @property
    def retry_after_seconds(self) -> float | None:
        """When it may be tried again; None if that is of no use."""


class Lines(Protocol):
    """Answers lines. The bridge does, so that a line is what the same request would be over REST."""

    @property
    def urls(self) -> Collection[str]:
        """The routes that lines may name."""

    async def answer(self, url: str, body: bytes, metadata: Sequence[tuple[str, str]]) -> Answer:
        """Answers a request, as whoever the metadata says; a request that fails is an answer too."""


class Line(msgspec.Struct, frozen=True):
    """A line of a batch's input."""

    custom_id: str
    """The name by which its answer is found."""
    method: str
    """`POST`."""
    url: str
    """The route."""
    body: Raw
    """The request."""


class LineError(Exception):
    """A line is not what a batch takes.

    Attributes:
        code: A word for it.
        message: A sentence.
        param: The field at fault, if it is one.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


_LINE = msgspec.json.Decoder(Line)


def read_line(raw: bytes, endpoint: str) -> Line:
    """Returns a line of a batch for `endpoint`.

    Raises:
        LineError: It is none.
    """
    try:
        raw.decode()  # msgspec does not look into strings that it passes over
        line = _LINE.decode(raw)
    except msgspec.ValidationError as error:
        wanted, _, place = str(error).partition(" - at `$")
        missing = wanted.partition("missing required field `")[2].rstrip("`")
        if missing:
            raise LineError("missing_required_parameter", f"'{missing}' must be given.", missing) from None
        raise LineError("invalid_request", f"This is not a line of a batch: {error}.", place.strip(".`") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LineError("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not 1 <= len(line.custom_id) <= _LONGEST_ID:
        raise LineError("invalid_custom_id", f"'custom_id' must have 1 to {_LONGEST_ID} characters.", "custom_id")
    if line.method != "POST":
        raise LineError("invalid_method", "'method' must be 'POST'.", "method")
    if line.url != endpoint:
        raise LineError("mismatched_endpoint", f"'url' must be the batch's endpoint, '{endpoint}'.", "url")
    try:
        body = _OBJECT.decode(line.body)
    except msgspec.MsgspecError:
        raise LineError("invalid_body", "'body' must be a JSON object.", "body") from None
    if "stream" in body and bytes(body["stream"]) == b"true":
        raise LineError("invalid_body", "'stream' cannot be true in a batch, for there is nobody to stream to.", "body.stream")
    return line


async def numbered(path: Path, most_bytes: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """Gives the lines of a file that are not blank, with their numbers from 1. It must be closed.

    Raises:
        LineError: A line is longer than `most_bytes`.
        OSError: The file cannot be read.
    """
    number, rest = 0, b""
    with await _opened(path) as file:
        while piece := await asyncio.to_thread(file.read, _READ_BYTES):
            *whole, rest = (rest + piece).split(b"\n")
            for raw in whole:
                number += 1
                if raw.strip():
                    yield number, raw
            if len(rest) > most_bytes:
                raise LineError("line_too_long", f"Line {number + 1} is longer than {most_bytes} bytes.")
        if rest.strip():
            yield number + 1, rest


def answered(id_: str, custom_id: str, answer: Answer) -> bytes:
    """Returns the line of an output or error file for a line that was answered."""
    # Providers may spread their JSON over lines, whose ends are nothing but blanks: within strings there are none.
    body = answer.body.translate(_LINE_ENDS_TO_BLANKS)
    response = {"status_code": answer.status, "request_id": answer.request_id, "body": orjson.Fragment(body)}
    return orjson.dumps({"id": id_, "custom_id": custom_id, "response": response, "error": None}) + b"\n"


def unanswered(id_: str, custom_id: str, code: str, message: str) -> bytes:
    """Returns the line of an error file for a line that was never answered."""
    error = {"code": code, "message": message}
    return orjson.dumps({"id": id_, "custom_id": custom_id, "response": None, "error": error}) + b"\n"


async def _opened(path: Path) -> BinaryIO:
    """Opens a file for reading. If the caller is cancelled meanwhile, it is closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(path.open, "rb"))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: None if done.cancelled() or done.exception() else done.result().close())
        raise
