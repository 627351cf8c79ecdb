"""How an answer is read, how long it may take, and what becomes of its connection."""

import asyncio
import gzip
import zlib
from contextlib import closing

import pytest
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.providers import timeouts as timeouts_module
from gateway.providers import upstream as upstream_module
from gateway.providers.sender import Phase, Sender, SendError, Timeouts, UpstreamResponse
from tests.gateway.providers.wire import (
    CHUNKED,
    CLOSE,
    DEAF,
    END,
    RESET,
    Script,
    Step,
    Wire,
    chunk,
    head,
    on_both_loops,
    outbound,
    soon,
    whole,
)

NETWORK = ErrorKind.ERROR_KIND_NETWORK_ERROR
TIMEOUT = ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT
PROVIDER = ErrorKind.ERROR_KIND_PROVIDER_ERROR
CANCELLED = ErrorKind.ERROR_KIND_CANCELLED
MIB = 1 << 20


async def pieces(response: UpstreamResponse) -> list[bytes]:
    """All pieces up to the end."""
    found = []
    while piece := await response.next_piece():
        found.append(piece)
    return found


async def failure(response: UpstreamResponse) -> tuple[bytes, SendError]:
    """What could be read, and the error that came after it."""
    read = b""
    try:
        while piece := await response.next_piece():
            read += piece
    except SendError as error:
        return read, error
    raise AssertionError(f"the answer ended well after {read!r}")


async def settled(sender: Sender) -> None:
    """Waits until nothing is under way any more."""
    while sender.open_responses:  # noqa: ASYNC110 - the sender has no event for this, and needs none
        await asyncio.sleep(0)


async def turn_over(sender: Sender) -> None:
    """Makes a request elsewhere, during which the loop sees what has come over all other connections."""
    async with Wire() as other:
        other.plays((whole(b"other"),))
        await (await sender.send(outbound(other.url))).read(MIB)


# Reading


@on_both_loops
async def test_each_piece_is_there_as_soon_as_it_has_come(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))
    response = await sender.send(outbound(wire.url))

    for part in (b"data: 1\n\n", b"data: 2\n\n", b"\xf0\x9f"):
        wire.peers[0].send(chunk(part))
        assert await response.next_piece() == part

    wire.peers[0].send(END)
    assert await response.next_piece() == b""
    assert await response.next_piece() == b""


@on_both_loops
async def test_what_came_together_is_one_piece(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"a") + chunk(b"b") + chunk(b"c") + END,))

    assert await pieces(await sender.send(outbound(wire.url))) == [b"abc"]


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + chunk(b"hello ") + b"5;ext=1\r\nworld\r\n" + b"0\r\nTrailer: x\r\n\r\n",
        head(content_length=11) + b"hello world",
        b"HTTP/1.1 200 OK\nContent-Length: 11\n\nhello world",
    ],
)
@on_both_loops
async def test_an_answer_is_read_wherever_the_network_cuts_it(wire: Wire, sender: Sender, answer: bytes) -> None:
    turns = [asyncio.Event() for _ in answer]
    wire.plays(tuple(step for turn, byte in zip(turns, answer, strict=True) for step in (bytes([byte]), turn)))
    sending = asyncio.create_task(sender.send(outbound(wire.url)))
    for turn in turns:
        turn.set()
        # The other side of a loopback socket needs a few turns of the loop to see a byte.
        for _ in range(3):
            await asyncio.sleep(0)

    assert b"".join(await pieces(await sending)) == b"hello world"


@on_both_loops
async def test_an_answer_without_length_ends_with_its_connection(wire: Wire, sender: Sender) -> None:
    wire.plays((b"HTTP/1.0 200 OK\r\n\r\nall of it", CLOSE))

    assert await (await sender.send(outbound(wire.url))).read(MIB) == b"all of it"


@on_both_loops
async def test_a_whole_body_is_read_in_one_go_however_it_comes(wire: Wire, sender: Sender) -> None:
    body = bytes(range(256)) * 4096
    wire.plays((whole(body),), (CHUNKED + chunk(body) + END,))

    for _ in range(2):
        assert await (await sender.send(outbound(wire.url))).read(MIB) == body

    assert len(wire.peers) == 1


@pytest.mark.parametrize("answer", [whole(b"x" * 101), CHUNKED + chunk(b"x" * 60) + chunk(b"x" * 60) + END])
@on_both_loops
async def test_an_answer_over_the_limit_is_an_error(wire: Wire, sender: Sender, answer: bytes) -> None:
    wire.plays((answer,))
    response = await sender.send(outbound(wire.url))

    with pytest.raises(SendError) as caught:
        await response.read(100)

    assert caught.value.kind == PROVIDER
    assert "more than 100 bytes" in caught.value.message


@on_both_loops
async def test_an_endless_answer_is_given_up_at_the_limit_and_its_socket_closed(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"x" * 1000),))
    response = await sender.send(outbound(wire.url))

    with pytest.raises(SendError) as caught:
        await response.read(999)

    assert caught.value.kind == PROVIDER
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_of_a_long_page_the_beginning_can_be_had(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"<html>" + b"x" * 1000, "502 Bad Gateway"),), (CHUNKED + chunk(b"<html>" + b"x" * 1000),))

    for _ in range(2):
        assert await (await sender.send(outbound(wire.url))).read(6, cut=True) == b"<html>"

    await soon(wire.peers[-1].gone.wait())


# Codings


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


TEXT = b"data: hello\n\n" * 1000
GZIPPED = head(content_encoding="gzip", transfer_encoding="chunked")


PACKED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "an older name of gzip": ("X-GZip", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate without its frame": ("deflate", raw_deflate(TEXT)),
    "identity": ("identity", TEXT),
}


@pytest.mark.parametrize("case", PACKED)
@on_both_loops
async def test_a_compressed_answer_is_unpacked_whole_and_in_pieces(wire: Wire, sender: Sender, case: str) -> None:
    coding, packed = PACKED[case]
    wire.plays((whole(packed, content_encoding=coding),), (head(content_encoding=coding, transfer_encoding="chunked"),))

    assert await (await sender.send(outbound(wire.url))).read(MIB) == TEXT

    response = await sender.send(outbound(wire.url))
    for byte in packed:
        wire.peers[0].send(chunk(bytes([byte])))
    wire.peers[0].send(END)
    assert b"".join(await pieces(response)) == TEXT
    assert len(wire.peers) == 1


DAMAGED: dict[str, tuple[bytes, str]] = {
    "all but the last byte": (gzip.compress(TEXT)[:-1], "broke off its compressed answer"),
    "half a header": (gzip.compress(TEXT)[:5], "broke off its compressed answer"),
    "a wrong checksum": (gzip.compress(TEXT)[:-5] + b"\0\0\0\0\0", "damaged"),
    "no gzip": (b"this is no gzip", "damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
@on_both_loops
async def test_a_compressed_answer_that_is_cut_or_damaged_is_the_providers_error(wire: Wire, sender: Sender, case: str) -> None:
    packed, words = DAMAGED[case]
    wire.plays((whole(packed, content_encoding="gzip"),))

    _, error = await failure(await sender.send(outbound(wire.url)))

    assert (error.kind, error.phase) == (PROVIDER, Phase.BODY)
    assert words in error.message


@on_both_loops
async def test_an_event_is_unpacked_when_it_comes_and_not_when_the_answer_ends(wire: Wire, sender: Sender) -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    wire.plays((GZIPPED + chunk(first),))

    with closing(await sender.send(outbound(wire.url))) as response:
        assert await response.next_piece() == b"data: 1\n\n"


@on_both_loops
async def test_a_few_bytes_that_unpack_to_very_many_are_given_out_in_bounded_pieces(wire: Wire, sender: Sender) -> None:
    bomb = gzip.compress(bytes(64 * MIB), 9)
    wire.plays((whole(bomb, content_encoding="gzip"),))

    found = await pieces(await sender.send(outbound(wire.url)))
    assert sum(map(len, found)) == 64 * MIB
    assert max(map(len, found)) <= MIB

    with pytest.raises(SendError, match="more than 1000 bytes"):
        await (await sender.send(outbound(wire.url))).read(1000)


# Answers that break


BROKEN: dict[str, tuple[Script, bytes]] = {
    "short of its length": ((head(content_length=10) + b"12345", CLOSE), b"12345"),
    "without its last chunk": ((CHUNKED + chunk(b"12345"), CLOSE), b"12345"),
    "within a chunk": ((CHUNKED + b"a\r\n12345", CLOSE), b"12345"),
    "after the headers": ((CHUNKED, CLOSE), b""),
    "within a chunk, compressed": ((GZIPPED + b"%x\r\n" % 1000 + gzip.compress(TEXT)[:5], CLOSE), b""),
}


@pytest.mark.parametrize("case", BROKEN)
@on_both_loops
async def test_a_broken_answer_gives_what_had_come_and_then_an_error(wire: Wire, sender: Sender, case: str) -> None:
    wire.plays(BROKEN[case][0])
    response = await sender.send(outbound(wire.url))

    read, error = await failure(response)

    assert (read, error.kind) == (BROKEN[case][1], NETWORK)
    assert "broke off its answer" in error.message or "not HTTP" in error.message
    with pytest.raises(SendError) as again:
        await response.next_piece()
    assert again.value is error
    await soon(wire.peers[0].gone.wait())


FLOODS: dict[str, bytes] = {
    "trailers": b"0\r\n" + b"T: x\r\n" * 5000,
    "a trailer": b"0\r\nT: " + b"x" * 100_000,
}
ENDS: dict[str, bytes | Step] = {
    "a reset": RESET,
    "a chunk without a length": b"zz\r\n",
    "a chunk over its length": b"5\r\nabcdefgh\r\n",
}


@pytest.mark.parametrize("case", [*ENDS, *FLOODS])
@on_both_loops
async def test_what_is_no_chunk_in_mid_answer_is_an_error(
    wire: Wire, sender: Sender, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(upstream_module, "LOOK_SECONDS", 0.05)
    go = asyncio.Event()
    wire.plays((CHUNKED + chunk(b"one"), go, (ENDS | FLOODS)[case]))
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"one"

    go.set()
    _, error = await failure(response)

    assert (error.kind, error.phase) == (NETWORK, Phase.BODY)
    await soon(wire.peers[0].gone.wait())


@pytest.mark.parametrize("case", ENDS)
@on_both_loops
async def test_what_is_no_chunk_is_an_error_before_the_first_token_too(
    wire: Wire, sender: Sender, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(upstream_module, "LOOK_SECONDS", 0.05)
    go = asyncio.Event()
    wire.plays((CHUNKED, go, ENDS[case]))
    response = await sender.send(outbound(wire.url))

    go.set()
    _, error = await failure(response)

    assert error.kind == NETWORK
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_what_came_with_the_break_is_read_even_by_a_slow_reader(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"), chunk(b"two"), CLOSE))
    response = await sender.send(outbound(wire.url))
    await soon(wire.peers[0].gone.wait())
    await turn_over(sender)

    read, error = await failure(response)

    assert (read, error.kind) == (b"onetwo", NETWORK)


# Timeouts


@on_both_loops
async def test_headers_alone_are_no_first_token(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))
    response = await sender.send(outbound(wire.url, timeouts=Timeouts(60, 0.5, 60, 60)))

    _, error = await failure(response)

    assert (error.kind, error.phase) == (TIMEOUT, Phase.FIRST_TOKEN)
    assert "first_token_timeout_seconds" in error.message
    await soon(wire.peers[0].gone.wait())


@pytest.mark.parametrize("first_token", [0.5, 60])
@on_both_loops
async def test_a_stall_is_found_whether_its_limit_is_the_shorter_one_or_not(wire: Wire, sender: Sender, first_token: float) -> None:
    wire.plays((CHUNKED + chunk(b"one"),))
    response = await sender.send(outbound(wire.url, timeouts=Timeouts(60, first_token, 0.6, 60)))

    read, error = await failure(response)

    assert (read, error.kind, error.phase) == (b"one", TIMEOUT, Phase.BODY)
    assert "stalled in mid-answer for 0.6 s" in error.message
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_the_total_ends_an_answer_that_keeps_coming(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))
    response = await sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 60, 0.5)))

    async def keep_coming() -> None:
        while True:
            wire.peers[0].send(chunk(b"x"))
            assert await response.next_piece()

    with pytest.raises(SendError) as caught:
        await keep_coming()

    assert (caught.value.kind, caught.value.phase) == (TIMEOUT, Phase.TOTAL)
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_the_total_closes_the_socket_even_while_nobody_reads(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),))
    response = await sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 60, 0.5)))

    await soon(wire.peers[0].gone.wait())

    _, error = await failure(response)
    assert (error.kind, error.phase) == (TIMEOUT, Phase.TOTAL)


@on_both_loops
async def test_a_slow_reader_is_no_stall(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),), (CHUNKED + chunk(b"one"),))
    unread = await sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 0.02, 60)))
    # Another answer's stall, five times as long, is the clock here.
    await failure(await sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 0.1, 60))))

    assert await unread.next_piece() == b"one"
    wire.peers[0].send(chunk(b"two") + END)
    await turn_over(sender)
    assert await pieces(unread) == [b"two"]


@on_both_loops
async def test_a_provider_is_held_back_by_a_slow_reader(wire: Wire, sender: Sender) -> None:
    body = bytes(64 * MIB)
    wire.plays((whole(body),))
    response = await sender.send(outbound(wire.url))
    waiting = wire.peers[0].writer.transport

    # The answer goes on into the buffers on its way until these are full.
    taken, before = len(body) - waiting.get_write_buffer_size(), -1
    while taken != before:
        await turn_over(sender)
        taken, before = len(body) - waiting.get_write_buffer_size(), taken

    assert taken < len(body) // 2
    assert len(await response.read(len(body))) == len(body)


@on_both_loops
async def test_an_answer_that_is_whole_does_not_expire(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),), ())
    unread = await sender.send(outbound(wire.url, timeouts=Timeouts(60, 0.5, 0.5, 0.5)))
    with pytest.raises(SendError):
        await sender.send(outbound(wire.url, timeouts=Timeouts(60, 0.6, 60, 60)))

    assert await unread.read(MIB) == b"one"


@on_both_loops
async def test_many_exchanges_come_due_each_in_its_turn(wire: Wire, sender: Sender) -> None:
    wire.plays(())

    async def one(seconds: float) -> Phase:
        with pytest.raises(SendError) as caught:
            await sender.send(outbound(wire.url, timeouts=Timeouts(60, seconds, 60, 60)))
        return caught.value.phase

    phases = await asyncio.gather(*(one(0.02 + number / 1000) for number in range(50)))

    assert set(phases) == {Phase.FIRST_TOKEN}


# Ending


@on_both_loops
async def test_cancelling_a_read_closes_the_socket(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),))
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"one"
    reading = asyncio.ensure_future(response.next_piece())
    await asyncio.sleep(0)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_closing_in_mid_answer_closes_the_socket_once(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),))
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"one"

    response.close()
    response.close()

    await soon(wire.peers[0].gone.wait())
    with pytest.raises(SendError) as caught:
        await response.next_piece()
    assert (caught.value.kind, caught.value.phase) == (CANCELLED, Phase.BODY)


@on_both_loops
async def test_closing_wakes_the_task_that_waits_for_a_piece(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))
    response = await sender.send(outbound(wire.url))
    reading = asyncio.ensure_future(response.next_piece())
    await asyncio.sleep(0)

    response.close()

    with pytest.raises(SendError) as caught:
        await reading
    assert caught.value.kind == CANCELLED


@on_both_loops
async def test_closing_an_answer_whose_end_has_come_keeps_its_connection(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"data: [DONE]\n\n") + END,))

    for _ in range(2):
        (await sender.send(outbound(wire.url))).close()

    assert len(wire.peers) == 1


@on_both_loops
async def test_releasing_an_answer_keeps_its_connection_once_the_end_has_come(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"data: [DONE]\n\n"),))
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"data: [DONE]\n\n"

    response.release()
    response.close()
    wire.peers[0].send(END)
    await turn_over(sender)
    response = await sender.send(outbound(wire.url))
    response.close()

    assert len(wire.peers) == 1


@on_both_loops
async def test_an_answer_that_came_before_the_request_was_taken_is_read_but_its_connection_not_kept(
    wire: Wire, sender: Sender
) -> None:
    wire.plays((DEAF, whole(b"too large", "413 Content Too Large"), asyncio.Event()))
    response = await sender.send(outbound(wire.url, body=bytes(32 * MIB)))

    assert (response.status, await response.read(MIB)) == (413, b"too large")
    wire.plays((whole(b"one"),))
    assert await (await sender.send(outbound(wire.url))).read(MIB) == b"one"

    assert len(wire.peers) == 2


@on_both_loops
async def test_releasing_an_answer_that_has_ended_keeps_its_connection(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),))

    for _ in range(2):
        (await sender.send(outbound(wire.url))).release()

    assert len(wire.peers) == 1


@pytest.mark.parametrize("rest", [(), (CLOSE,), (b"junk\r\n",)])
@on_both_loops
async def test_a_released_answer_that_does_not_end_is_closed(
    wire: Wire, sender: Sender, monkeypatch: pytest.MonkeyPatch, rest: tuple[bytes | Step, ...]
) -> None:
    monkeypatch.setattr(upstream_module, "_LINGER_SECONDS", 0.05)
    go = asyncio.Event()
    wire.plays((CHUNKED + chunk(b"one"), go, *rest))
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"one"

    response.release()
    go.set()

    await soon(wire.peers[0].gone.wait())
    await soon(settled(sender))


@on_both_loops
async def test_a_released_answer_is_not_kept_open_by_a_sender_that_closes(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),))
    (await sender.send(outbound(wire.url))).release()

    await sender.close()

    await soon(wire.peers[0].gone.wait())
