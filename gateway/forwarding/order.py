"""What may be forwarded: the rules for methods, paths, queries and headers, as pure functions.

The scheme and the host are always the provider's configured ones, and nothing here reads either from a request. A path is refused
rather than cleaned, since a provider may read a cleaned one in yet another way. Above is `gateway.forwarding.forwarder`.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

Headers: TypeAlias = list[tuple[str, bytes]]
"""Headers in order, each with its name as the sender wrote it."""

_METHOD: Final = re.compile(r"[A-Za-z]{1,32}")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_PATH: Final = re.compile(r"/(?!/)(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(r"[\x21\x22\x24-\x7e]*")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MOST_ENCODINGS: Final = 8
_MOST_TARGET_BYTES: Final = 16 * 1024
_MOST_HEADER_BYTES: Final = 64 * 1024
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "content-length",
        "expect",
    }
)
"""Headers of one connection and of framing, which each side of the gateway has for itself (RFC 9110, 7.6.1)."""
_CREDENTIALS: Final = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "proxy-authorization", "cookie"})
_HOSTS: Final = frozenset(
    {"host", "forwarded", "x-real-ip", "x-original-host", "x-original-url", "x-rewrite-url", "x-host", "x-http-host-override"}
)
_OVERRIDES: Final = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""Headers by which a provider would take a request for another one than the key's rights were checked for."""
_TRACE: Final = frozenset({"traceparent", "tracestate"})
_NOT_SENT: Final = _HOP_BY_HOP | _CREDENTIALS | _HOSTS | _OVERRIDES | _TRACE
_NOT_ANSWERED: Final = _HOP_BY_HOP | {"proxy-authenticate", "proxy-authentication-info"}
_NOT_TRAILING: Final = _NOT_SENT | {
    "content-encoding",
    "content-range",
    "content-type",
    "trailer",
    "set-cookie",
    "location",
    "proxy-authenticate",
}
_YIELDING: Final = frozenset({"anthropic-version", "user-agent"})
"""Headers that the gateway sends only where the client does not."""
_KEY_PROTOCOL: Final = b"openai-insecure-api-key."
"""With this, browsers give a credential as a subprotocol of a WebSocket."""


def method(given: str) -> str:
    """Returns a method that may be forwarded.

    Raises:
        GatewayError: INVALID_REQUEST if it is none, METHOD_NOT_ALLOWED for one that is not forwarded.
    """
    if not _METHOD.fullmatch(given):
        raise refused("The method must be 1 to 32 letters.", "method")
    if given.upper() in _REFUSED_METHODS:
        raise GatewayError(ErrorKind.ERROR_KIND_METHOD_NOT_ALLOWED, f"{given} is not forwarded to providers.", param="method")
    return given


def target(path: str, query: str) -> str:
    """Returns the target of a request line, which is what was given.

    Raises:
        GatewayError: INVALID_REQUEST if the path could be read as another one than it looks, or holds what no path may hold.
    """
    if len(path) + len(query) > _MOST_TARGET_BYTES:
        raise refused(f"Path and query are longer than {_MOST_TARGET_BYTES} bytes together.", "path")
    if not _PATH.fullmatch(path):
        raise refused(
            "The path must begin with one slash, and hold nothing but the characters that RFC 3986 gives a path, others "
            "percent-encoded.",
            "path",
        )
    if not _QUERY.fullmatch(query):
        raise refused("The query holds a character that must be percent-encoded.", "query")
    decoded = path.encode()
    for _ in range(_MOST_ENCODINGS):
        _check_path(decoded)
        further = unquote_to_bytes(decoded)
        if further == decoded:
            return f"{path}?{query}" if query else path
        decoded = further
    raise refused("The path is percent-encoded too many times.", "path")


def sent_headers(given: Iterable[tuple[str, bytes]], own: Iterable[tuple[str, str]], *, websocket: bool = False) -> Headers:
    """Returns the headers that the provider gets.

    Args:
        given: The client's.
        own: The gateway's: the provider's credential, what is configured for it, and the trace. They replace the client's.
        websocket: Whether a WebSocket is asked for, whose own headers the gateway writes.

    Raises:
        GatewayError: INVALID_REQUEST if one cannot be sent.
    """
    given = list(given)
    _check_headers(given)
    names = {name.lower() for name, _ in given}
    added = [(name, value.encode("utf-8", "surrogateescape")) for name, value in own if not _yields(name, names)]
    left_out = _NOT_SENT | _named_by_connection(given) | {name.lower() for name, _ in added}
    found: Headers = []
    for name, value in given:
        lower = name.lower()
        if lower in left_out or lower.startswith("x-forwarded-"):
            continue
        if websocket and lower.startswith("sec-websocket-"):
            if lower == "sec-websocket-protocol" and (rest := _without_key(value)):
                found.append((name, rest))
            continue
        found.append((name, value))
    if any(name.lower() == "te" and b"trailers" in value.lower() for name, value in given):
        found.append(("TE", b"trailers"))
    return found + added


def answered_headers(given: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Returns the headers of a provider's answer that the client gets."""
    named = [(name.decode("latin-1"), value) for name, value in given]
    left_out = _NOT_ANSWERED | _named_by_connection(named)
    return [(name, value) for name, value in named if name.lower() not in left_out]


def sent_trailers(given: Sequence[tuple[str, bytes]]) -> Headers:
    """Returns the trailing headers that the provider gets.

    Raises:
        GatewayError: INVALID_REQUEST if one cannot be sent.
    """
    _check_headers(given)
    return [(name, value) for name, value in given if name.lower() not in _NOT_TRAILING]


def answered_trailers(given: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Returns the trailing headers of an answer that the client gets."""
    named = [(name.decode("latin-1"), value) for name, value in given]
    return [(name, value) for name, value in named if name.lower() not in _NOT_TRAILING and not _CONTROL.search(value)]


def refused(message: str, param: str) -> GatewayError:
    """Returns the error of a request that is not forwarded."""
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, message, param=param)


def _check_path(decoded: bytes) -> None:
    """Refuses a path that is dangerous as it stands here, after some rounds of decoding."""
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        raise refused("The path is no UTF-8 once it is decoded.", "path") from None
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)  # some servers take full-width dots and slashes for plain ones
    if "\\" in text or any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        raise refused("The path holds a backslash or a control character.", "path")
    if "//" in text[:2] or "://" in text:
        raise refused("The path holds a URL. The provider's own host is the only one that is asked.", "path")
    for segment in text.split("/"):
        if segment.partition(";")[0] in {".", ".."} or segment.partition("?")[0] in {".", ".."}:
            raise refused("The path holds a dot segment. Write it without '.' and '..'.", "path")


def _check_headers(given: Sequence[tuple[str, bytes]]) -> None:
    size = 0
    for name, value in given:
        size += len(name) + len(value)
        if not _NAME.fullmatch(name):
            raise refused("A header's name holds a character that none may hold.", "headers")
        if _CONTROL.search(value):
            raise refused(f"The header '{name}' holds a control character.", "headers")
    if size > _MOST_HEADER_BYTES:
        raise refused(f"The headers are larger than {_MOST_HEADER_BYTES} bytes.", "headers")


def _named_by_connection(given: Iterable[tuple[str, bytes]]) -> set[str]:
    """Returns the headers that `Connection` says are for this connection alone."""
    values = [value.decode("latin-1") for name, value in given if name.lower() == "connection"]
    return {token.strip().lower() for value in values for token in value.split(",")}


def _yields(name: str, given: set[str]) -> bool:
    return name.lower() in _YIELDING and name.lower() in given


def _without_key(protocols: bytes) -> bytes:
    offered = [protocol.strip() for protocol in protocols.split(b",")]
    return b", ".join(protocol for protocol in offered if protocol and not protocol.startswith(_KEY_PROTOCOL))
