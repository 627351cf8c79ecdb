"""Server-sent events, read from bytes: pieces of a body go in, the `data` payloads of finished events come out.

Below is nothing: the decoder is pure and does no I/O. Above are the provider adapters, which feed it what
`gateway.providers.sender` hands them. It does not parse the payloads, knows no `[DONE]`, and does not tell event names apart, since
every provider repeats them inside the payload.

The rules are the WHATWG ones (HTML standard, section 9.2.6 "Interpreting an event stream"), with three differences that real
providers ask for: an event that the end of the stream left without its blank line counts, one whose data is empty does not, and
there is a limit to what is kept of one event.
"""

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The longest line that is read, and the most data that one event may carry, in bytes."""

_CR = 13
_LF = 10
_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Turns the pieces of one event stream into payloads, wherever the pieces were cut.

    Work per piece depends on the piece alone, never on how long the stream or the line already is.
    """

    __slots__ = ("_data", "_max_line_bytes", "_partial", "_plain", "_skip_lf", "_start")

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._start: bytes | None = b""
        """What came before it was clear whether the stream begins with a byte order mark. None once that is settled."""
        self._partial = bytearray()
        """A line whose end has not come yet."""
        self._data: bytes | bytearray | None = None
        """The data of an event whose blank line has not come yet: bytes while it is one line, as it nearly always is."""
        self._skip_lf = False
        """Whether the last piece ended in CR, so that an LF which comes next belongs to the same line end."""
        self._plain = False
        """Whether the stream has begun and none of the above holds anything: the next piece begins an event."""

    def feed(self, data: bytes) -> list[bytes]:
        r"""Take the next piece and return the payloads of the events that it completes, in order.

        A payload of several data lines is joined with `\n`. Comments, other fields and events with no data give nothing, and
        neither does a body that is no event stream.

        Raises:
            GatewayError: PROVIDER_ERROR, if a line or the data of one event is over the limit. The decoder is of no use after.
        """
        # Nearly every piece of every provider holds whole events of one `data: ` line each, most often a single one. This reads
        # those and no others, with a few calls a piece; the forms are the fastest ones measured (`in` with an int is memchr).
        if self._plain and data[:6] == b"data: " and data[-2:] == b"\n\n" and len(data) <= self._max_line_bytes:
            payload = data[6:-2]
            if _CR not in payload:
                if payload and _LF not in payload:
                    return [payload]
                # Splitting at the border between two events takes off both the blank line and the prefix, and the number of line
                # feeds proves that there was nothing else in between.
                payloads = payload.split(b"\n\ndata: ")
                if payload.count(b"\n") == 2 * len(payloads) - 2 and all(payloads):
                    return payloads
        return self._feed_lines(data)

    def finish(self) -> list[bytes]:
        """Return the payload of the event that the end of the stream left open, if there is one: at most one payload.

        A missing blank line, or a missing line end, must not lose the last event. Call it only where the body came whole.

        Raises:
            GatewayError: As `feed` does.
        """
        payloads: list[bytes] = []
        if self._partial:
            self._take_line(bytes(self._partial), payloads)
            self._partial.clear()
        self._take_line(b"", payloads)
        return payloads

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._start is not None:
            data = self._start + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._start = data
                return []
            self._start = None
            data = data.removeprefix(_BOM)
        if not data:
            return []
        if self._skip_lf:
            data = data.removeprefix(b"\n")
        self._skip_lf = data.endswith(b"\r")

        # For bytes, unlike for str, these are LF, CR and CRLF only.
        lines = data.splitlines()
        rest = b"" if data.endswith((b"\n", b"\r")) or not lines else lines.pop()
        payloads: list[bytes] = []
        if lines and self._partial:
            self._partial += lines[0]
            lines[0] = bytes(self._partial)
            self._partial.clear()
        for line in lines:
            self._take_line(line, payloads)
        if rest:
            self._partial += rest
            self._check(len(self._partial))
        self._plain = not (self._partial or self._skip_lf or self._data is not None)
        return payloads

    def _take_line(self, line: bytes, payloads: list[bytes]) -> None:
        """Read one whole line; a blank one ends the event and appends its payload."""
        if not line:
            if self._data:
                payloads.append(bytes(self._data))
            self._data = None
            return
        self._check(len(line))
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b" ", 5) else line[5:]
        elif line == b"data":
            value = b""
        else:
            return
        if self._data is None:
            self._data = value
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += b"\n" + value
        self._check(len(self._data))

    def _check(self, size: int) -> None:
        if size > self._max_line_bytes:
            raise GatewayError(
                ErrorKind.ERROR_KIND_PROVIDER_ERROR,
                f"The provider sent a line or an event of more than {self._max_line_bytes} bytes in its stream. "
                "Ask for less in one answer, or check that its url serves server-sent events.",
            )
