"""Logging: text for a person at a terminal, JSON lines for a machine.

A line about a request names it through `extra`, as in `_log.warning("...", extra={"request_id": ..., **span.log_fields})`. No line
is written for each request. Credentials do not belong into a log, and nothing here or above logs one; should an exception's text
or a library's line hold one all the same, it is struck out before it is written.
"""

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

LogFormat = Literal["text", "json"]

_FIELDS = ("request_id", "trace_id", "span_id")
_REPEAT_AFTER_SECONDS = 300.0
_TEMPLATE_LIMIT = 1000

# An authorization header's value, keys as the gateway and the large providers form them, and what is assigned to a telling name.
_CREDENTIALS = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{16,}"
    r"|\b(?:(?:ts|sk|rk|pk|gsk|xai)[-_]|AIza)[\w-]{16,}"
    r"|(?P<name>\b(?:api[-_]?key|key|token|password|secret)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)}\]]{4,}",
    re.IGNORECASE,
)


def configure_logging(level: str = "info", log_format: LogFormat | None = None, stream: TextIO | None = None) -> None:
    """Sends the log of the whole process to one stream, in place of whatever was configured before.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: The form of a line; None for text on a terminal and JSON elsewhere.
        stream: Where the log goes; None for standard error.

    Raises:
        ValueError: There is no such level.
    """
    stream = sys.stderr if stream is None else stream
    if log_format is None:
        log_format = "text" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if log_format == "text" else JsonFormatter())
    handler.addFilter(RepetitionFilter())
    root = logging.getLogger()
    root.setLevel(level.upper())
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)


def without_credentials(text: str) -> str:
    """Returns a text with whatever looks like a credential struck out."""
    return _CREDENTIALS.sub(lambda match: f"{match['scheme'] or match['name'] or ''}***", text)


class TextFormatter(logging.Formatter):
    """A line for a person: time of day, level, logger, message, and the request it is about."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, and an exception's stack below it."""
        line, newline, stack = super().format(record).partition("\n")
        named = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        return without_credentials(f"{line}{named}{newline}{stack}")


class JsonFormatter(logging.Formatter):
    """A line for a machine: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_credentials(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = without_credentials(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


class RepetitionFilter(logging.Filter):
    """Lets a message of OpenTelemetry's through once in five minutes: an exporter without a collector would repeat it for ever.

    Its library logs each retry, each failed batch and each dropped span, and a caller's malformed `tracestate` with each request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether the line is written."""
        if not record.name.startswith("opentelemetry."):
            return True
        # By the template, of which a library has a fixed number, and not by the message, which may hold a caller's text.
        key = (record.name, str(record.msg))
        now = time.monotonic()
        last = self._last.get(key)
        if last is not None and now - last < _REPEAT_AFTER_SECONDS:
            return False
        if len(self._last) >= _TEMPLATE_LIMIT:
            self._last.clear()
        self._last[key] = now
        return True


def _fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(value) for name in _FIELDS if (value := getattr(record, name, None))}
