"""Forms as they come over the wire, whole and hostile."""

import asyncio
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridge.errors import BridgeError
from bridge.multipart import Form

TYPE = "multipart/form-data; boundary=XX"
FILE = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: x/y\r\n\r\n'
FIELD = b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
END = b"--XX--\r\n"


class Pieces:
    """A body that comes in these pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    async def readany(self) -> bytes:
        return next(self._pieces, b"")


async def read(*pieces: bytes, content_type: str = TYPE) -> list[tuple[str, str | None, bytes]]:
    form = Form(content_type, Pieces(pieces))
    return [(part.name, part.filename, b"".join([piece async for piece in part])) async for part in form.parts()]


@given(st.data(), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_a_form_is_the_same_however_it_is_cut(data: st.DataObject, content: bytes) -> None:
    tricky = content + b"\r\n--X" + content + b"\r\n--" + b"\r"
    assume(b"\r\n--XX" not in b"\r\n" + tricky)
    body = FIELD + FILE + tricky + b"\r\n" + FIELD + END
    cuts = sorted(data.draw(st.lists(st.integers(1, len(body) - 1), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a != b]
    found = asyncio.run(read(*pieces))
    assert found == [("purpose", None, b"batch"), ("file", "a.bin", tricky), ("purpose", None, b"batch")]


async def test_each_byte_may_come_alone() -> None:
    body = FILE + b"\r\n\r\n--X\r\n" + END
    assert await read(*(body[i : i + 1] for i in range(len(body)))) == [("file", "a.bin", b"\r\n\r\n--X")]


async def test_an_empty_file_is_a_file() -> None:
    assert await read(FILE + b"\r\n" + END) == [("file", "a.bin", b"")]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="a"; filename="b c.txt"', "a", "b c.txt"),
        ("form-data; name=a; filename=b.txt", "a", "b.txt"),
        ('form-data; name="a"; filename="quote \\" and \\\\ and ; in it"', "a", 'quote " and \\ and ; in it'),
        ('form-data; name="a"; filename="x"; filename*=UTF-8\'\'%e2%82%ac.txt', "a", "€.txt"),
        ('FORM-DATA; NAME="a"; filename="grüezi.txt"', "a", "grüezi.txt"),
        ('form-data; name="a"', "a", None),
        ('form-data; name="a"; name="b"', "a", None),
    ],
)
async def test_names_are_read_as_clients_write_them(disposition: str, name: str, filename: str | None) -> None:
    head = f"--XX\r\ncontent-disposition: {disposition}\r\n\r\n".encode()
    assert await read(head + b"1\r\n" + END) == [(name, filename, b"1")]


async def test_blanks_after_a_boundary_and_a_part_that_nobody_reads_are_passed_over() -> None:
    form = Form(
        'multipart/form-data; charset=utf-8; boundary="XX"', Pieces([FILE.replace(b"--XX", b"--XX \t") + b"1\r\n" + FIELD + END])
    )
    assert [part.name async for part in form.parts()] == ["file", "purpose"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX",
        b"--XX\r\n",
        FILE,
        FILE + b"some",
        FILE + b"some\r\n--X",
        FILE + b"some\r\n--XX",
        b"preamble\r\n" + FILE + b"1\r\n" + END,
        FILE + b"1\r\n--XXY\r\n" + END,
        b"--XX\r\n\r\n1\r\n" + END,
        b"--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END,
        b'--XX\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n' + END,
        b"--XX\r\nno colon\r\n\r\n1\r\n" + END,
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n' + END,
        b"--XX\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n1\r\n" + END,
        b"--XX" + b" " * 20_000 + b"\r\n" + END,
        FIELD * 65 + END,
    ],
    ids=range(17),
)
async def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(BridgeError, match=r"^The form cannot be read: "):
        await read(body)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=XX",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"{TYPE}{'X' * 70}",
    ],
)
async def test_what_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(BridgeError):
        await read(FILE + b"1\r\n" + END, content_type=content_type)


async def test_a_field_is_bounded_and_must_be_text() -> None:
    for value in (b"a" * 70_000, b"\xff"):
        form = Form(TYPE, Pieces([FIELD.replace(b"batch", value) + END]))
        with pytest.raises(BridgeError):
            [await part.text() async for part in form.parts()]


async def test_a_large_file_takes_little_memory() -> None:
    piece = bytes(64 * 1024)
    form = Form(TYPE, Pieces([FILE, *[piece] * 512, b"\r\n" + END]))
    tracemalloc.start()
    try:
        async for part in form.parts():
            assert sum([len(piece) async for piece in part]) == 512 * len(piece)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
