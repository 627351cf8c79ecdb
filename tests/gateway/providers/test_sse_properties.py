"""For any stream and any way of cutting it, the decoder gives what a parser gives that sees the whole stream and takes its time."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.sse import SSEDecoder

LIMIT = 64
UNTIMED = settings(deadline=None)
"""How long one example takes is up to what else the machine does."""

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def reference(stream: bytes) -> list[bytes]:
    """The rules as the standard tells them, over the whole stream at once, with the three differences that `sse` states."""
    payloads: list[bytes] = []
    data: list[bytes] = []
    for line in [*re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            payload = b"\n".join(data)
            if payload:
                payloads.append(payload)
            data = []
            continue
        name, colon, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" ") if colon else b"")
    return payloads


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    value = draw(st.one_of(st.text(max_size=8).map(str.encode), st.binary(max_size=8)))
    kind = draw(st.sampled_from([b"data: ", b"data:", b"data", b"", b": ", b"event: ", b"id:", b"retry: 1", b"data: data: "]))
    return re.sub(rb"[\r\n]", b"", kind + value) if kind else b""


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Lines that resemble events, with one kind of line end or all of them."""
    ends = draw(st.one_of(LINE_ENDS.map(st.just), st.just(LINE_ENDS)))
    bom = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb"]))
    parts = [draw(st.one_of(lines(), st.just(b""))) + draw(ends) for _ in range(draw(st.integers(0, 12)))]
    return bom + b"".join(parts) + draw(st.one_of(st.just(b""), lines()))


TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=12)


@st.composite
def plain_streams(draw: st.DrawFn) -> bytes:
    """What nearly every provider sends."""
    payloads = draw(st.lists(TEXTS, max_size=8))
    return b"".join(b"data: " + payload.encode() + b"\n\n" for payload in payloads)


@st.composite
def cut(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """A stream, and the same stream in pieces."""
    stream = draw(source)
    marks = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    return stream, [stream[start:end] for start, end in zip([0, *marks], [*marks, len(stream)], strict=True)]


def decode(pieces: list[bytes], limit: int = 1 << 20) -> list[bytes]:
    decoder = SSEDecoder(max_line_bytes=limit)
    payloads = [payload for piece in pieces for payload in decoder.feed(piece)]
    return payloads + decoder.finish()


@UNTIMED
@given(cut(st.one_of(streams(), plain_streams())))
@example((b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"data: 1\r", b"\n\r", b"\ndata: 2\r\n", b"\r\n"]))
@example((b"data: 1\n\n\ndata: 2\n\n", [b"data: 1\n\n", b"\ndata: 2\n\n"]))
def test_the_payloads_are_those_of_the_reference_wherever_the_stream_is_cut(case: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = case

    assert decode(pieces) == reference(stream)


@UNTIMED
@given(cut(plain_streams()))
def test_pieces_of_whole_events_and_pieces_cut_anywhere_give_the_same(case: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = case
    events = [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]

    assert decode(events) == decode([stream]) == decode(pieces) == reference(stream)


@UNTIMED
@given(cut(st.binary(max_size=300)))
def test_any_bytes_give_payloads_or_the_one_documented_error(case: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = case
    try:
        payloads = decode(pieces, LIMIT)
    except GatewayError as error:
        assert error.kind == ErrorKind.ERROR_KIND_PROVIDER_ERROR  # noqa: PT017 - whether there is an error is not known before
        assert len(stream) > LIMIT
    else:
        assert payloads == reference(stream)


@UNTIMED
@given(streams().filter(lambda stream: len(stream) <= LIMIT), st.integers(1, 7))
def test_a_stream_within_the_limit_never_breaks_it(stream: bytes, size: int) -> None:
    assert decode([stream[start : start + size] for start in range(0, len(stream), size)], LIMIT) == reference(stream)
