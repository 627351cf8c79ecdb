"""Operations that send a form with files: transcriptions, and images that are edited.

The form is sent on as it comes, and so is the answer. Where the model is named only after a file, what came before it waits, in
memory up to a limit and on disk beyond it. Above are the services; below is the sender.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, Final

from twinspan.v1 import content_pb2, forms_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.limits.estimate import Size
from gateway.operations import json_text
from gateway.operations.json_operation import invalid, usage_of
from gateway.operations.usage_watch import UsageWatch
from gateway.providers import form_data
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_HELD_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_BODY_LIMIT: Final = 64 * 1024 * 1024
_MOST_PARTS: Final = 64
_CONTENT_TYPE = re.compile(r"[!-~]+/[ -~]+")
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FormKind:
    """A kind of operation.

    Attributes:
        name: What spans call it.
        service: The capability that a provider declares for it.
        path: Where providers have it, below their base URL.
        file: The field of the file that must be given.
    """

    name: str
    service: str
    path: str
    file: str


class Form:
    """A form that is read once, and written again as it is read.

    Attributes:
        model: The model that it names; empty if it names none.
        sent: Whether anything of it has been sent.
        boundary: What tells its parts apart.
    """

    def __init__(self, pieces: AsyncIterator[forms_pb2.FormPiece], kind: FormKind, most_bytes: int) -> None:
        """Makes a form of these pieces, which may hold so many bytes in all."""
        self.model = ""
        self.sent = False
        self.boundary = secrets.token_hex(16)
        self._pieces = pieces
        self._kind = kind
        self._most_bytes = most_bytes
        self._bytes = 0
        self._parts = 0
        self._in_file = False
        self._has_file = False
        self._held = SpooledTemporaryFile(max_size=_HELD_BYTES)  # noqa: SIM115 (closed by `close`)

    async def begin(self) -> None:
        """Reads until it is known which model is asked, and that there is a file.

        Raises:
            GatewayError: The form is not one, or lacks its file.
        """
        held = 0
        async for piece in self._pieces:
            data = self._written(piece)
            held += len(data)
            if held > _HELD_BYTES:
                await asyncio.to_thread(self._held.write, data)
            else:
                self._held.write(data)
            if self.model and self._has_file:
                break
        if not self._has_file:
            raise invalid(self._kind.file, f"'{self._kind.file}' must be given, as a file.")
        self._held.seek(0)

    async def body(self, model: str) -> AsyncGenerator[bytes]:
        """Gives the form's bytes as they come, with this model."""
        self.sent = True
        if model:
            yield form_data.field_part(self.boundary, "model", model)
        while data := await asyncio.to_thread(self._held.read, _PIECE_BYTES):
            yield data
        async for piece in self._pieces:
            if data := self._written(piece):
                yield data
        yield (b"\r\n" if self._in_file else b"") + form_data.end(self.boundary)

    def close(self) -> None:
        """Forgets what is held."""
        self._held.close()

    def _written(self, piece: forms_pb2.FormPiece) -> bytes:
        """Returns a piece as it stands in a form; nothing for the model, which is written anew."""
        kind = piece.WhichOneof("piece")
        if kind == "content":
            if not self._in_file:
                raise invalid("piece", "Content must follow a file.")
            self._bytes += len(piece.content)
            if self._bytes > self._most_bytes:
                raise GatewayError(
                    ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
                    f"The files are larger than the {self._most_bytes} bytes that this gateway takes (server.max_upload_bytes).",
                )
            return piece.content
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise invalid("piece", f"A form may have {_MOST_PARTS} parts.")
        end, self._in_file = b"\r\n" if self._in_file else b"", kind == "file"
        if kind == "file":
            file = piece.file
            self._has_file = self._has_file or file.name.removesuffix("[]") == self._kind.file
            type_ = file.content_type or _UNKNOWN
            if not _CONTENT_TYPE.fullmatch(type_):
                raise invalid(file.name[:64], f"'{type_[:64]}' is no content type.")
            return end + form_data.file_part(self.boundary, file.name, file.filename, type_)
        if kind != "field":
            raise invalid("piece", "A piece must be a field, a file or content.")
        if piece.field.name == "model":
            self.model = piece.field.value
            return end
        return end + form_data.field_part(self.boundary, piece.field.name, piece.field.value)


class FormOperation:
    """A form to be answered."""

    __slots__ = ("_form", "_kind")

    creates = True
    repeatable = False

    def __init__(self, kind: FormKind, form: Form) -> None:
        """Takes a form that has begun."""
        self._kind = kind
        self._form = form

    @property
    def model(self) -> str:
        """See `Operation.model`."""
        return self._form.model

    @property
    def service(self) -> str | None:
        """See `Operation.service`."""
        return self._kind.service

    def check(self, *, trusted: bool) -> None:
        """See `Operation.check`: what can be looked at ahead of the provider was, when the form began."""

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """See `Operation.span`."""
        return tracing.operation_span(parent, self._kind.name, self.model)

    def instruct(self, agent: Agent) -> None:
        """See `Operation.instruct`: there is nobody to instruct."""

    def url(self, provider: Provider) -> str:
        """See `Operation.url`."""
        return provider.url(self._kind.path)

    def size(self) -> Size:
        """See `Operation.size`: nobody knows what is in a recording or a picture."""
        return Size(0)

    def session(self) -> bytes | None:
        """See `Operation.session`: it is no conversation."""
        return None

    def shorter(self) -> None:
        """See `Operation.shorter`: it cannot be asked again."""

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> "FormAttempt":
        """See `Operation.attempt`."""
        return FormAttempt(target, counts, span, self.url(target.provider), self._form)


class FormAttempt(Attempt):
    """Asks one target, and reads its answer.

    Attributes:
        content_type: What the answer is, once it is open.
        first: Its first bytes, once it is open.
    """

    __slots__ = ("_form", "_url", "_usage", "_watch", "content_type", "first")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan, url: str, form: Form) -> None:
        """Makes an attempt to get a form answered there; the rest as for `Attempt`."""
        super().__init__(target, counts, span)
        self.content_type = _UNKNOWN
        self.first = b""
        self._url = url
        self._form = form
        self._usage: content_pb2.Usage | None = None
        self._watch = UsageWatch(self.content_type)

    @property
    def usage(self) -> content_pb2.Usage | None:
        """See `Attempt.usage`."""
        return self._usage or self._watch.usage

    def may_have_acted(self, error: GatewayError) -> bool:
        """See `Attempt.may_have_acted`; what was sent of a form cannot be sent again either."""
        return self._form.sent or super().may_have_acted(error)

    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """See `Attempt.open`: it returns with the first bytes, or with a whole JSON answer."""
        provider = self.target.provider
        headers: dict[str, Any] = {name: value for name, value in provider.headers.items() if name.lower() != "content-type"}
        upstream = await self._send(
            sender,
            OutboundRequest(
                url=self._url,
                headers={
                    **headers,
                    "Content-Type": f"multipart/form-data; boundary={self._form.boundary}",
                    **dict(self._span.headers),
                },
                body=self._form.body(self.target.model),
                timeouts=Timeouts(provider.timeouts.connect, remaining_seconds, remaining_seconds, remaining_seconds),
                provider=provider.name,
                model=self.target.model,
                repeatable=False,
            ),
        )
        self.content_type = upstream.headers.get("content-type") or _UNKNOWN
        if not self.content_type.startswith("application/json"):
            self._watch = UsageWatch(self.content_type)
            self.first = await self.next()
            return
        self.first = await upstream.read(_BODY_LIMIT)
        try:
            self._usage = usage_of(json_text.scan(self.first).get("usage"))
        except ValueError:
            raise self._broken("sent something that is not a JSON object", ErrorKind.ERROR_KIND_PROVIDER_ERROR) from None
        self._done = self.is_whole = True
        self._counts.chunk(self._span.sampled_trace_id)

    async def next(self) -> bytes:
        """Waits for the bytes that come next, and returns them; none after the last.

        Raises:
            GatewayError: The answer broke off or stalled.
        """
        if self._done:
            return b""
        assert self._upstream is not None  # noqa: S101 (for the type checker: `open` has set it)
        piece = await self._upstream.next_piece()
        self._watch.see(piece)
        if piece:
            self._counts.chunk(self._span.sampled_trace_id)
        else:
            self._done = True
        return piece

    async def pieces(self) -> AsyncGenerator[forms_pb2.FormAnswer]:
        """Gives the answer as it comes, in messages of bounded size, the first of which says what it is."""
        kind, data = self.content_type, self.first
        while data or kind:
            for start in range(0, max(1, len(data)), _PIECE_BYTES):
                yield forms_pb2.FormAnswer(content_type=kind, content=data[start : start + _PIECE_BYTES])
                kind = ""
            data = await self.next()
