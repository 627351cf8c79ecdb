"""Metadata as it leaves the wire: what one side gives, checked and turned into what the other side would see.

The rules are those of gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): keys are lower-case,
values are printable ASCII, keys that end in `-bin` carry bytes, and the transport's own keys are nobody else's.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import grpc

Pairs: TypeAlias = tuple[tuple[str, str | bytes], ...]

_LEGAL_KEY = re.compile(r"[0-9a-z_.\-]+")
_TRANSPORT_KEYS = frozenset(
    {"content-type", "grpc-accept-encoding", "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout", "te", "user-agent"}
)
# What a key says of its value. Plain numbers, because they are compared for every entry of every call.
_TEXT, _BINARY, _TRANSPORT, _ILLEGAL = range(4)


class Metadatum(NamedTuple):
    """One entry of the metadata that a servicer sees."""

    key: str
    value: str | bytes


def checked(metadata: Iterable[Any], *, tuples_only: bool = False) -> Pairs:
    """Returns metadata as the other side sees it.

    Args:
        metadata: Pairs of a key and a value, or a `grpc.aio.Metadata`.
        tuples_only: Refuses pairs that are no tuples, as grpc.aio does where a server gives metadata.

    Raises:
        grpc.aio.InternalError: A key or a value is not legal.
        TypeError: A key or a value is of a wrong type.
    """
    pairs: list[tuple[str, str | bytes]] = []
    for pair in metadata:
        if tuples_only and not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"Invalid metadata, expected pairs of a key and a value: {metadata!r}")
        key, value = pair
        kind = _kind(key)
        if kind == _TEXT:
            if type(value) is bytes:
                value = value.decode("latin-1")
            elif not isinstance(value, str):
                raise TypeError(f"Metadata key={key!r} expected str, got {type(value)}")
            if not (value.isascii() and value.isprintable()):
                raise grpc.aio.InternalError(f"Illegal header value: the metadata value of {key!r} must be printable ASCII.")
            pairs.append((key, value))
        elif kind == _BINARY:
            if not isinstance(value, bytes):
                raise TypeError(f"Binary metadata key={key!r} expected bytes, got {type(value)}")
            pairs.append((key, value))
        elif kind == _ILLEGAL:
            raise grpc.aio.InternalError(f"Illegal header key: {key!r} must be of lower-case letters, digits, '-', '_' and '.'.")
    return tuple(pairs)


# Most calls carry the same few keys.
@lru_cache(maxsize=512)
def _kind(key: str) -> int:
    if not isinstance(key, str):
        raise TypeError(f"Expected str, not {type(key)}")
    if _LEGAL_KEY.fullmatch(key) is None:
        return _ILLEGAL
    if key in _TRANSPORT_KEYS:
        return _TRANSPORT
    return _BINARY if key.endswith("-bin") else _TEXT
