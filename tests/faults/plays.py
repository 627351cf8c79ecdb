"""What a provider, or the network before it, may do to an answer: one play a fault.

Above is `tests.faults.table`, which says what the client sees of each.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Mapping

from tests.faults.proxy import Answer, Passage, Play

CONTEXT_TOO_LONG = {"error": {"message": "This model reads 4096 tokens at most.", "code": "context_length_exceeded"}}
WRONG_KEY = {"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}}
NO_SUCH_URL = {"error": {"message": "Unknown request URL.", "type": "invalid_request_error"}}
SLOW_DOWN = {"error": {"message": "Slow down.", "type": "rate_limit_error"}}
PAGE = b"<html><body><h1>Oops</h1></body></html>"


async def passes(passage: Passage) -> None:
    """Passes the answer on as it is."""
    answer = await passage.answer()
    await passage.send(_chunked(answer) + b"".join(map(_chunk, answer.pieces)) + b"0\r\n\r\n")


async def resets_at_once(passage: Passage) -> None:
    passage.reset()


async def resets_after_the_head(passage: Passage) -> None:
    await passage.arrive()
    passage.reset()


async def resets_after_the_request(passage: Passage) -> None:
    await passage.request()
    passage.reset()


async def resets_after_its_headers(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_chunked(answer))
    passage.reset()


async def resets_before_the_first_event(passage: Passage) -> None:
    await _begin_badly(passage)
    passage.reset()


async def resets_after_the_first_event(passage: Passage) -> None:
    await _begin(passage, await passage.answer())
    passage.reset()


async def resets_right_behind_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_chunked(answer) + _chunk(answer.begun))
    passage.reset()


async def hangs_at_once(passage: Passage) -> None:
    await passage.request()
    await passage.hang()


async def hangs_after_its_headers(passage: Passage) -> None:
    await passage.send(_chunked(await passage.answer()))
    await passage.hang()


async def hangs_before_the_first_event(passage: Passage) -> None:
    await _begin_badly(passage)
    await passage.hang()


async def hangs_after_the_first_event(passage: Passage) -> None:
    await _begin(passage, await passage.answer())
    await passage.hang()


async def sends_byte_by_byte(passage: Passage) -> None:
    answer = await passage.answer()
    raw = _chunked(answer) + b"".join(map(_chunk, answer.pieces)) + b"0\r\n\r\n"
    for number in range(len(raw)):
        await passage.send(raw[number : number + 1])
        await asyncio.sleep(0)  # so that the gateway reads it before the next one


async def speaks_no_http(passage: Passage) -> None:
    await passage.request()
    await passage.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    await passage.hang()


async def sends_garbage_before_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_chunked(answer) + _chunk(b"data: {oops\n\n") + _chunk(answer.body) + b"0\r\n\r\n")


async def sends_garbage_after_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    await _begin(passage, answer)
    await passage.send(_chunk(b"data: {oops\n\n") + _chunk(answer.rest) + b"0\r\n\r\n")


async def sends_an_error_after_the_first_event(passage: Passage) -> None:
    await _begin(passage, await passage.answer())
    await passage.send(_chunk(b'data: {"error": {"message": "The server is overloaded.", "type": "server_error"}}\n\n0\r\n\r\n'))


async def answers_200_with_a_page(passage: Passage) -> None:
    await passage.request()
    await passage.send(_whole("200 OK", PAGE, "text/html"))


async def cuts_its_gzip_off(passage: Passage) -> None:
    answer = await passage.answer()
    packed = gzip.compress(answer.pieces[0] if answer.streamed else answer.body)
    await passage.send(_whole("200 OK", packed[:-12], answer.content_type, {"Content-Encoding": "gzip"}))


async def cuts_its_gzip_off_after_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    await passage.send(_chunked(answer, {"Content-Encoding": "gzip"}))
    await passage.send(_chunk(packer.compress(answer.begun) + packer.flush(zlib.Z_SYNC_FLUSH)))
    await passage.seen.wait()
    await passage.send(b"0\r\n\r\n")


async def is_packed_well(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_whole("200 OK", gzip.compress(answer.body), answer.content_type, {"Content-Encoding": "gzip"}))


async def sends_less_than_its_length(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(
        _head("200 OK", answer.content_type, {"Content-Length": str(len(answer.body) + 100)}) + answer.pieces[0][:10]
    )
    await passage.finish()


async def sends_less_than_its_length_after_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_head("200 OK", answer.content_type, {"Content-Length": str(len(answer.body))}) + answer.begun)
    await passage.seen.wait()
    await passage.finish()


async def sends_more_than_its_length(passage: Passage) -> None:
    answer = await passage.answer()
    length = len(answer.pieces[0]) - 10
    await passage.send(_head("200 OK", answer.content_type, {"Content-Length": str(length)}) + answer.body)
    await passage.hang()


async def sends_more_than_its_length_after_the_first_event(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_head("200 OK", answer.content_type, {"Content-Length": str(len(answer.begun) + 10)}) + answer.begun)
    await passage.seen.wait()
    await passage.send(answer.rest)
    await passage.hang()


async def half_closes_before_it_answers(passage: Passage) -> None:
    await passage.request()
    await passage.finish()


async def half_closes_after_its_headers(passage: Passage) -> None:
    await passage.send(_chunked(await passage.answer()))
    await passage.finish()


async def half_closes_after_the_first_event(passage: Passage) -> None:
    await _begin(passage, await passage.answer())
    await passage.finish()


async def ends_an_unframed_answer_early(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_head("200 OK", answer.content_type, {"Connection": "close"}) + answer.begun)
    await passage.seen.wait()
    await passage.finish()


async def says_nothing_and_is_done(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_chunked(answer) + b"0\r\n\r\n")


async def says_done_and_nothing_else(passage: Passage) -> None:
    answer = await passage.answer()
    await passage.send(_whole("200 OK", b"data: [DONE]\n\n", answer.content_type))


async def is_gone_when_it_is_asked_again(passage: Passage) -> None:
    """Answers, and ends the connection just when the next request comes over it, as a server does whose patience has ended."""
    await passes(passage)
    await passage.arrive_again()
    passage.reset()


def refuses(status: str, body: Mapping[str, object] | bytes, **headers: str) -> Play:
    """Answers each request with an error: a page, or an object as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = _whole(status, raw, "text/html" if isinstance(body, bytes) else "application/json", named)

    async def play(passage: Passage) -> None:
        await passage.request()
        await passage.send(answer)

    return play


def every_other_time(play: Play) -> Play:
    """Plays a fault with the first exchange, the third, and so on, and passes the others."""

    async def alternates(passage: Passage) -> None:
        await passage.arrive()
        await (play if passage.number % 2 else passes)(passage)

    return alternates


async def _begin(passage: Passage, answer: Answer) -> None:
    """Sends the beginning of an answer, and waits until the client has seen it, if it can."""
    await passage.send(_chunked(answer) + _chunk(answer.begun))
    if answer.streamed:
        await passage.seen.wait()


async def _begin_badly(passage: Passage) -> None:
    """Sends less than one event."""
    answer = await passage.answer()
    await passage.send(_chunked(answer) + _chunk(answer.pieces[0][:10]))


def _head(status: str, content_type: str, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _chunked(answer: Answer, headers: Mapping[str, str] | None = None) -> bytes:
    return _head("200 OK", answer.content_type, {"Transfer-Encoding": "chunked", **(headers or {})})


def _whole(status: str, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> bytes:
    return _head(status, content_type, {"Content-Length": str(len(body)), **(headers or {})}) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
