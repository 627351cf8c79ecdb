"""Messages on their way from one side to the other: never the object that was given, and never bytes if that can be avoided.

A protobuf message is copied when it is handed over, so that neither side sees what the other does to it later, and arrives as
it is. Anything else goes through its serializer and deserializer, as it would on the wire.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message


def snapshots(serializer: Callable[[Any], bytes] | None) -> Callable[[Any], Any]:
    """Returns what the sender does to each message: it makes a copy, or bytes, that no later change of the message reaches."""
    if serializer is None:
        return _as_bytes
    if getattr(serializer, "__name__", None) != "SerializeToString":
        return serializer

    def snapshot(message: Any) -> Any:
        if not isinstance(message, Message):
            return serializer(message)  # which raises the error that the wire's sender would see
        copy = type(message)()
        copy.CopyFrom(message)
        return copy

    return snapshot


def adoptions(deserializer: Callable[[bytes], Any] | None) -> Callable[[Any], Any]:
    """Returns what the receiver does to each snapshot: it takes it as its own if it is of the class that it expects."""
    expected = getattr(deserializer, "__self__", None)

    def adopt(snapshot: Any) -> Any:
        if type(snapshot) is expected:
            return snapshot
        if isinstance(snapshot, Message):
            snapshot = snapshot.SerializeToString()
        return snapshot if deserializer is None else deserializer(snapshot)

    return adopt


def _as_bytes(message: Any) -> bytes:
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"Expected bytes, got {type(message).__name__}: a method without a serializer carries bytes.")
