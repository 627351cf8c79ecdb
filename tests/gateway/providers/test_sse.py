"""Every reading rule for event streams, one by one. `test_sse_properties.py` has them all at once."""

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.sse import MAX_LINE_BYTES, SSEDecoder


def decode(*pieces: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    payloads = [payload for piece in pieces for payload in decoder.feed(piece)]
    return payloads + decoder.finish()


STREAMS: dict[str, tuple[bytes, list[bytes]]] = {
    "one event": (b'data: {"a": 1}\n\n', [b'{"a": 1}']),
    "several events": (b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n", [b"1", b"2", b"[DONE]"]),
    "no space after the colon": (b"data:1\n\ndata:2\n\n", [b"1", b"2"]),
    "one space is taken and no more": (b"data:  1\n\ndata:\t2\n\n", [b" 1", b"\t2"]),
    "crlf": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
    "cr": (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
    "mixed line ends": (b"data: 1\r\n\ndata: 2\n\rdata: 3\r\r\ndata: 4\r\n\r\n", [b"1", b"2", b"3", b"4"]),
    "multi-line data": (b"data: 1\ndata:2\ndata\ndata: 4\n\n", [b"1\n2\n\n4"]),
    "comments": (b": ping\n\ndata: 1\n: OPENROUTER PROCESSING\n\n:\n\n", [b"1"]),
    "other fields": (b"event: ping\nid: 7\nretry: 10\nfoo: bar\nfoo\ndata: 1\n\nevent: x\n\n", [b"1"]),
    "an event between events without data": (b"data: 1\n\nevent: ping\n\ndata: 2\n\n", [b"1", b"2"]),
    "fields that only begin like data": (b"data-x: 1\n\ndatax: 2\n\nDATA: 3\n\n data: 4\n\n", []),
    "empty data": (b"data: \n\ndata:\n\ndata\n\ndata: 1\n\n", [b"1"]),
    "empty data among several events": (b"data: 1\n\ndata: \n\ndata: 2\n\n", [b"1", b"2"]),
    "more blank lines than needed": (b"\n\n\ndata: 1\n\n\n\ndata: 2\n\n\n", [b"1", b"2"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n", [b"1"]),
    "half a byte order mark": (b"\xef\xbbdata: 1\n\ndata: 2\n\n", [b"2"]),
    "bytes that are no utf-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "line ends of other alphabets": ("data: a\u2028b\x0bc\x0cd\x85e\n\n".encode("latin-1", "ignore"), [b"ab\x0bc\x0cd\x85e"]),
    "a colon in the data": (b"data: data: 1\n\ndata: : 2\n\n", [b"data: 1", b": 2"]),
    "no blank line at the end": (b"data: 1\n\ndata: 2\n", [b"1", b"2"]),
    "no line end at the end": (b"data: 1\n\ndata: 2", [b"1", b"2"]),
    "several lines and no end": (b"data: 1\ndata: 2", [b"1\n2"]),
    "half a field name at the end": (b"data: 1\n\ndat", [b"1"]),
    "nothing": (b"", []),
    "json": (b'{"error": {"message": "no"}}', []),
    "a page": (b"<html>\n\n<body>data: 1</body>\n", []),
}


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_is_read_the_same_wherever_it_is_cut(case: str, size: int) -> None:
    stream, payloads = STREAMS[case]

    assert decode(*[stream[start : start + size] for start in range(0, len(stream), size)]) == payloads


def test_an_event_is_there_with_its_blank_line_and_not_before() -> None:
    decoder = SSEDecoder()

    assert [decoder.feed(piece) for piece in (b"data: 1", b"\n", b"\n", b"data: 2\n\nda", b"ta: 3\n\ndata: 4\n\n")] == [
        [],
        [],
        [b"1"],
        [b"2"],
        [b"3", b"4"],
    ]


def test_an_event_is_there_with_the_first_half_of_its_last_line_end() -> None:
    decoder = SSEDecoder()

    assert [decoder.feed(piece) for piece in (b"data: 1\r", b"\n\r", b"\ndata: 2\r\r", b"\n")] == [[], [b"1"], [b"2"], []]


def test_a_character_may_be_split_over_pieces() -> None:
    assert decode(b"data: \xf0\x9f", b"\x8c", b"\x8d\n\n") == ["🌍".encode()]


def test_an_empty_piece_changes_nothing() -> None:
    assert decode(b"", b"data: 1\r", b"", b"\n\r\n", b"") == [b"1"]


def test_an_end_ends_once() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: 1")

    assert (decoder.finish(), decoder.finish()) == ([b"1"], [])


@pytest.mark.parametrize("size", [64 * 1024, MAX_LINE_BYTES + 8])
def test_a_line_of_16_mib_is_read(size: int) -> None:
    payload = b"x" * (MAX_LINE_BYTES - len(b"data: "))
    stream = b"data: " + payload + b"\n\ndata: 2\n\n"

    assert decode(*[stream[start : start + size] for start in range(0, len(stream), size)]) == [payload, b"2"]


LIMIT = 100
OVER: dict[str, bytes] = {
    "a line": b"data: " + b"x" * 95 + b"\n\n",
    "a line among others": b"data: 1\n\ndata: " + b"x" * 95 + b"\n\ndata: 2\n\n",
    "a line without an end": b"data: " + b"x" * 95,
    "a comment": b":" + b"x" * 100 + b"\n",
    "the lines of an event": (b"data: " + b"x" * 40 + b"\n") * 3,
    "empty lines of an event": b"data\n" * 102,
    "what is no event stream": b"{" * 101,
}


@pytest.mark.parametrize("case", OVER)
@pytest.mark.parametrize("size", [1, 50, 1000])
@pytest.mark.parametrize("before", [b"", b"data: 0\n\n"])
def test_what_is_over_the_limit_is_the_providers_error(case: str, size: int, before: bytes) -> None:
    decoder = SSEDecoder(max_line_bytes=LIMIT)
    decoder.feed(before)

    with pytest.raises(GatewayError) as caught:
        [decoder.feed(OVER[case][start : start + size]) for start in range(0, len(OVER[case]), size)]

    assert caught.value.kind == ErrorKind.ERROR_KIND_PROVIDER_ERROR
    assert "100 bytes" in caught.value.message


def test_the_limit_is_for_one_line_and_not_for_a_stream_or_a_piece() -> None:
    decoder = SSEDecoder(max_line_bytes=LIMIT)
    event = b"data: " + b"x" * 94 + b"\n\n"

    assert decoder.feed(event * 1000) == [b"x" * 94] * 1000
    assert decoder.feed(event * 1000) == [b"x" * 94] * 1000


def test_work_for_a_long_line_does_not_grow_with_what_has_come_before() -> None:
    """Lesson 2: work per chunk that grows with the stream's length. Counted in bytes that are looked at, not in seconds."""

    class Counted(bytes):
        looked_at = 0

        def splitlines(self, keepends: bool = False) -> list[bytes]:
            Counted.looked_at += len(self)
            return super().splitlines(keepends)

    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(1000):
        decoder.feed(Counted(b"x" * 1000))

    assert Counted.looked_at == 1000 * 1000
