"""Writes profiles as `go tool pprof` reads them: pprof's `profile.proto`, gzipped. Pure.

Source of the field numbers: https://github.com/google/pprof/blob/main/proto/profile.proto. The message is written by hand, for it
is all that the gateway has to do with it.
"""

import gzip
from collections.abc import Iterable

from gateway.profiling.profile import Frame, Profile, ValueType

_MAPPING_ID = 1


class _Strings:
    """The table of a profile's texts, the first of which is empty."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {"": 0}

    def place(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))


def encode(profile: Profile) -> bytes:
    """Returns a profile in pprof's form, gzipped."""
    strings = _Strings()
    locations: dict[Frame, int] = {}
    functions: dict[tuple[str, str, int], int] = {}
    out = bytearray()
    for value_type in profile.value_types:
        out += _nested(1, _value_type(value_type, strings))
    for (stack, labels), values in profile.samples.items():
        ids = [locations.setdefault(frame, len(locations) + 1) for frame in stack]
        sample = _packed(1, ids) + _packed(2, values)
        for name, value in labels:
            sample += _nested(3, _number(1, strings.place(name)) + _number(2, strings.place(value)))
        out += _nested(2, sample)
    # One mapping that has everything, so that nothing is looked for in a binary.
    flags = b"".join(_number(field, 1) for field in (7, 8, 9, 10))
    out += _nested(3, _number(1, _MAPPING_ID) + _number(5, strings.place("python")) + flags)
    for frame, id_ in locations.items():
        function = functions.setdefault((frame.name, frame.filename, frame.start_line), len(functions) + 1)
        line = _number(1, function) + _number(2, frame.line)
        out += _nested(4, _number(1, id_) + _number(2, _MAPPING_ID) + _nested(4, line))
    for (name, filename, start_line), id_ in functions.items():
        place = strings.place(name)
        fields = _number(1, id_) + _number(2, place) + _number(3, place)
        out += _nested(5, fields + _number(4, strings.place(filename)) + _number(5, start_line))
    tail = _number(9, profile.started_ns) + _number(10, profile.duration_ns)
    tail += _nested(11, _value_type(profile.period_type, strings)) + _number(12, profile.period)
    tail += b"".join(_always(13, strings.place(comment)) for comment in profile.comments)
    tail += _number(14, strings.place(profile.value_types[-1].type))
    for text in strings.texts:
        data = text.encode("utf-8", "replace")
        out += _key(6, 2) + _varint(len(data)) + data
    return gzip.compress(bytes(out + tail), mtime=0)


def _value_type(value_type: ValueType, strings: _Strings) -> bytes:
    return _number(1, strings.place(value_type.type)) + _number(2, strings.place(value_type.unit))


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _always(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _number(field: int, value: int) -> bytes:
    return _always(field, value) if value else b""


def _nested(field: int, data: bytes) -> bytes:
    return _key(field, 2) + _varint(len(data)) + data


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _nested(field, b"".join(map(_varint, values)))
