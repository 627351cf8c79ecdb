"""What is sent, over which connection, and what becomes of a request that gets no answer."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import traceback
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
import trustme
from multidict import CIMultiDict
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.errors import GatewayError
from gateway.providers import sender as sender_module
from gateway.providers.sender import OutboundRequest, Phase, Sender, SendError, Timeouts
from tests.gateway.providers.wire import (
    AMPLE,
    CHUNKED,
    CLOSE,
    DEAF,
    END,
    RESET,
    SECRET,
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


async def unary(sender: Sender, request: OutboundRequest) -> bytes:
    with closing(await sender.send(request)) as response:
        return await response.read(1 << 25)


async def turn_over(sender: Sender) -> None:
    """Makes a request elsewhere, during which the loop sees what has come over all other connections."""
    async with Wire() as other:
        other.plays((whole(b"other"),))
        assert await unary(sender, outbound(other.url)) == b"other"


async def failure(awaitable: Awaitable[object]) -> SendError:
    with pytest.raises(SendError) as caught:
        await awaitable
    return caught.value


@on_both_loops
async def test_a_request_goes_out_as_given_and_the_answer_comes_back(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b'{"ok": true}', x_request_id="r-1"),))
    headers = {"Content-Type": "application/json", "User-Agent": "twinspan/1", "Authorization": "Bearer k"}

    request = OutboundRequest(URL(wire.url) / "a b?".rstrip("?"), headers, b'{"a": 1}', AMPLE, "acme", "m-1")
    response = await sender.send(request)
    body = await response.read(1024)

    assert (response.status, response.headers["X-Request-Id"], body) == (200, "r-1", b'{"ok": true}')
    assert wire.heads == [
        b"POST /v1/chat/a%20b HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(wire.port).encode() + b"\r\n"
        b"Content-Type: application/json\r\n"
        b"User-Agent: twinspan/1\r\n"
        b"Authorization: Bearer k\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Length: 8\r\n\r\n"
    ]
    assert wire.peers[0].bodies == [b'{"a": 1}']


@on_both_loops
async def test_a_caller_can_set_the_host_but_not_the_framing(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))
    framing = {"Content-Length": "999", "transfer-encoding": "chunked", "Connection": "close", "ACCEPT-ENCODING": "br"}
    headers = {"Host": "chat.example", "X-Other": "1", **framing}

    assert await unary(sender, OutboundRequest(wire.url, headers, b"{}", AMPLE, "acme", "m-1")) == b"ok"

    lines = wire.heads[0].split(b"\r\n")[1:-2]
    assert lines == [b"Host: chat.example", b"X-Other: 1", b"Accept-Encoding: identity", b"Content-Length: 2"]


@on_both_loops
async def test_userinfo_of_the_url_becomes_basic_authentication(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))
    url = wire.url.replace("//", "//ann:pass@")
    request = OutboundRequest(url, {}, b"", AMPLE, "acme", "m-1")

    await unary(sender, request)
    await unary(sender, outbound(url))

    assert b"\r\nAuthorization: Basic YW5uOnBhc3M=\r\n" in wire.heads[0]
    assert b"Basic" not in wire.heads[1]
    assert b"ann" not in wire.heads[0] + wire.heads[1]


@on_both_loops
async def test_cookies_are_never_sent_back(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok", set_cookie="session=1"),))

    await unary(sender, outbound(wire.url))
    await unary(sender, outbound(wire.url))

    assert b"cookie" not in wire.heads[1].lower()


@on_both_loops
async def test_no_proxy_of_the_environment_is_used(wire: Wire, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    wire.plays((whole(b"ok"),))

    assert await unary(sender, outbound(wire.url)) == b"ok"


@on_both_loops
async def test_a_header_that_repeats_and_one_that_is_no_utf8_go_out_as_they_came_in(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))
    headers = CIMultiDict(
        [("anthropic-beta", "a"), ("anthropic-beta", "b"), ("X-Name", b"caf\xe9".decode("utf-8", "surrogateescape"))]
    )

    await unary(sender, OutboundRequest(wire.url, headers, b"", AMPLE, "acme", "m-1"))

    assert b"anthropic-beta: a\r\nanthropic-beta: b\r\nX-Name: caf\xe9\r\n" in wire.heads[0]


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\rX-Admin: 1", "a\0b"])
@on_both_loops
async def test_a_header_that_would_end_its_line_is_refused_and_nothing_is_sent(wire: Wire, sender: Sender, value: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await sender.send(outbound(wire.url, tracestate=value))

    assert caught.value.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST
    assert wire.peers == []


@pytest.mark.parametrize("url", ["/v1/chat", "ftp://127.0.0.1/x", "http:///x", "http://127.0.0.1:99999/x", ""])
@on_both_loops
async def test_a_url_that_cannot_be_sent_to_is_not_configured(wire: Wire, sender: Sender, url: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await sender.send(outbound(url))

    assert caught.value.kind == ErrorKind.ERROR_KIND_NOT_CONFIGURED
    assert "'acme'" in caught.value.message


@on_both_loops
async def test_a_large_body_arrives_whole(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))
    body = bytes(range(256)) * 20_000

    assert await unary(sender, outbound(wire.url, body=body)) == b"ok"

    assert wire.peers[0].bodies == [body]


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "500 Oops", "503 Busy"])
@on_both_loops
async def test_an_error_status_is_an_answer(wire: Wire, sender: Sender, status: str) -> None:
    wire.plays((whole(b"<html>", status),))

    response = await sender.send(outbound(wire.url))

    assert (response.status, await response.read(1024)) == (int(status[:3]), b"<html>")


@on_both_loops
async def test_informational_answers_are_passed_over(wire: Wire, sender: Sender) -> None:
    wire.plays((head("103 Early Hints", link="</a>"), head("100 Continue") + whole(b"ok")))

    assert await unary(sender, outbound(wire.url)) == b"ok"


@pytest.mark.parametrize("answer", [head("204 No Content"), whole(b""), head("304 Not Modified", content_encoding="br")])
@on_both_loops
async def test_an_answer_without_a_body_ends_at_once(wire: Wire, sender: Sender, answer: bytes) -> None:
    wire.plays((answer,))

    for _ in range(2):
        response = await sender.send(outbound(wire.url))
        assert await response.next_piece() == b""

    assert len(wire.peers) == 1


@on_both_loops
async def test_the_answer_to_head_has_no_body_whatever_its_length_says(wire: Wire, sender: Sender) -> None:
    wire.plays((head(content_length=1000),))
    request = outbound(wire.url)
    request.method = "HEAD"

    assert await unary(sender, request) == b""
    assert wire.heads[0].startswith(b"HEAD /v1/chat HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("location", "told"),
    [
        (f"https://u:{SECRET}@other.example/{SECRET}?key={SECRET}", "https://other.example"),
        (f"/elsewhere?key={SECRET}", "308"),
        ("http://[", "308"),
    ],
)
@on_both_loops
async def test_a_redirect_is_named_and_not_followed(wire: Wire, sender: Sender, location: str, told: str) -> None:
    wire.plays((whole(b"", "308 Permanent Redirect", location=location),))

    error = await failure(sender.send(outbound(wire.url)))

    assert (error.kind, error.phase) == (PROVIDER, Phase.FIRST_TOKEN)
    assert told in error.message
    assert SECRET not in error.message
    assert len(wire.heads) == 1


@on_both_loops
async def test_a_switch_of_protocols_is_no_answer(wire: Wire, sender: Sender) -> None:
    wire.plays((head("101 Switching Protocols", upgrade="websocket", connection="upgrade") + b"\x81\x00",))

    assert (await failure(sender.send(outbound(wire.url)))).kind == PROVIDER
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_a_connection_serves_one_request_after_the_other(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))

    for _ in range(3):
        assert await unary(sender, outbound(wire.url)) == b"ok"

    assert len(wire.peers) == 1


@on_both_loops
async def test_requests_at_the_same_time_have_a_connection_each(wire: Wire, sender: Sender) -> None:
    go = asyncio.Event()
    wire.plays((go, whole(b"ok")))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(unary(sender, outbound(wire.url))) for _ in range(20)]
        await wire.requests(20)
        assert sender.open_responses == 20
        go.set()

    assert [task.result() for task in tasks] == [b"ok"] * 20
    assert len(wire.peers) == 20


@on_both_loops
async def test_a_full_pool_makes_requests_wait_for_each_other(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"ok"),))

    async with Sender(max_connections=1) as narrow, asyncio.TaskGroup() as group:
        tasks = [group.create_task(unary(narrow, outbound(wire.url))) for _ in range(5)]

    assert [task.result() for task in tasks] == [b"ok"] * 5
    assert len(wire.peers) == 1


@on_both_loops
async def test_waiting_for_a_place_in_a_full_pool_counts_as_connecting(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))

    async with Sender(max_connections=1) as narrow:
        with closing(await narrow.send(outbound(wire.url))):
            error = await failure(narrow.send(outbound(wire.url, timeouts=Timeouts(0.05, 60, 60, 60))))

    assert (error.kind, error.phase, error.request_sent) == (TIMEOUT, Phase.CONNECT, False)


# Failures before an answer


ANSWERLESS: dict[str, tuple[Script, ErrorKind.ValueType, str]] = {
    "closes": ((CLOSE,), NETWORK, "closed the connection without an answer"),
    "resets": ((RESET,), NETWORK, ""),
    "half a head": ((b"HTTP/1.1 200 OK\r\nContent-Type: text/ev", CLOSE), NETWORK, "closed the connection without an answer"),
    "garbage": ((b"\x16\x03\x01 what is this\r\n\r\n",), NETWORK, "not HTTP"),
    "another protocol": ((b"SSH-2.0-OpenSSH_9.6\r\n",), NETWORK, "not HTTP"),
    "a bad length": ((b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), NETWORK, "not HTTP"),
    "two lengths": ((b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",), NETWORK, "not HTTP"),
    "endless headers": ((b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000,), NETWORK, "not HTTP"),
    "too many headers": ((b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n",), NETWORK, "not HTTP"),
    "unknown coding": ((head(content_length=3, content_encoding="br"),), PROVIDER, "neither gzip nor deflate"),
    "more than its length": ((head(content_length=3) + b"abcdef",), NETWORK, "not HTTP"),
    "a bad chunk at once": ((CHUNKED + chunk(b"12345") + b"zz\r\n",), NETWORK, "not HTTP"),
    "a length and chunks": ((head(content_length=3, transfer_encoding="chunked") + chunk(b"abc") + END,), NETWORK, "not HTTP"),
    "another protocol's status": ((head("999 Denied", content_length=0),), PROVIDER, "HTTP status 999, which is no final answer"),
    "informational answers only": ((head("103 Early Hints") * 1000,), PROVIDER, "HTTP status 103, which is no final answer"),
    "no final answer": ((head("100 Continue"), CLOSE), NETWORK, "closed the connection without an answer"),
}


@pytest.mark.parametrize("case", ANSWERLESS)
@on_both_loops
async def test_an_answer_that_is_none_is_told_by_its_kind_and_closes_the_socket(wire: Wire, sender: Sender, case: str) -> None:
    script, kind, words = ANSWERLESS[case]
    wire.plays(script)
    url = wire.url.replace("//", f"//ann:{SECRET}@") + f"?key={SECRET}"

    error = await failure(sender.send(outbound(url)))

    assert (error.kind, error.phase, error.request_sent, error.repeated) == (kind, Phase.FIRST_TOKEN, True, False)
    assert (error.provider, error.model) == ("acme", "m-1")
    assert error.message.startswith(f"The provider 'acme' (127.0.0.1:{wire.port}) ")
    assert words in error.message
    assert SECRET not in "".join(traceback.format_exception_only(error))
    await soon(wire.peers[0].gone.wait())
    assert len(wire.peers) == 1


@on_both_loops
async def test_a_provider_that_is_not_there_was_sent_nothing(wire: Wire, sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    error = await failure(sender.send(outbound(f"http://ann:{SECRET}@127.0.0.1:{port}/v1?key={SECRET}")))

    assert (error.kind, error.phase, error.request_sent) == (NETWORK, Phase.CONNECT, False)
    assert f"127.0.0.1:{port}" in error.message
    assert "connection refused" in error.message
    assert SECRET not in error.message


@on_both_loops
async def test_a_connection_that_takes_too_long_was_sent_nothing(wire: Wire, sender: Sender) -> None:
    silent = wire.url.replace("http:", "https:")

    error = await failure(sender.send(outbound(silent, timeouts=Timeouts(0.05, 60, 60, 60))))

    assert (error.kind, error.phase, error.request_sent) == (TIMEOUT, Phase.CONNECT, False)
    assert "0.05 s" in error.message


@on_both_loops
async def test_the_total_bounds_connecting_too(wire: Wire, sender: Sender) -> None:
    silent = wire.url.replace("http:", "https:")

    error = await failure(sender.send(outbound(silent, timeouts=Timeouts(60, 60, 60, 0.05))))

    assert (error.kind, error.phase) == (TIMEOUT, Phase.CONNECT)


@on_both_loops
async def test_a_silent_provider_times_out_before_the_first_token(wire: Wire, sender: Sender) -> None:
    error = await failure(sender.send(outbound(wire.url, timeouts=Timeouts(60, 0.05, 60, 60))))

    assert (error.kind, error.phase, error.request_sent) == (TIMEOUT, Phase.FIRST_TOKEN, True)
    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_the_total_bounds_the_wait_for_an_answer_too(wire: Wire, sender: Sender) -> None:
    error = await failure(sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 60, 0.5))))

    assert (error.kind, error.phase) == (TIMEOUT, Phase.TOTAL)
    await soon(wire.peers[0].gone.wait())


# Cancellation


@on_both_loops
async def test_cancelling_a_request_that_waits_for_its_answer_closes_the_socket(wire: Wire, sender: Sender) -> None:
    sending = asyncio.create_task(sender.send(outbound(wire.url)))
    await wire.requests(1)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_cancelling_a_request_that_still_connects_closes_the_socket(wire: Wire, sender: Sender) -> None:
    sending = asyncio.create_task(sender.send(outbound(wire.url.replace("http:", "https:"))))
    await wire.connections(1)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_cancelling_a_request_whose_body_is_not_taken_drops_the_rest_of_it(wire: Wire, sender: Sender) -> None:
    read_now = asyncio.Event()
    wire.plays((DEAF, read_now))
    body = bytes(32 << 20)
    sending = asyncio.create_task(sender.send(outbound(wire.url, body=body)))
    await wire.requests(1)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    read_now.set()

    await soon(wire.peers[0].gone.wait())
    assert len(b"".join(wire.peers[0].bodies)) < len(body)


@on_both_loops
async def test_closing_the_sender_ends_what_still_waits(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED + chunk(b"one"),), ())
    response = await sender.send(outbound(wire.url))
    assert await response.next_piece() == b"one"
    reading = asyncio.ensure_future(response.next_piece())
    sending = asyncio.create_task(sender.send(outbound(wire.url)))
    await wire.requests(2)

    await sender.close()

    for waiting in (reading, sending):
        assert (await failure(waiting)).kind == ErrorKind.ERROR_KIND_CANCELLED
    for peer in wire.peers:
        await soon(peer.gone.wait())


@on_both_loops
async def test_closing_the_sender_ends_what_still_connects(wire: Wire, sender: Sender) -> None:
    wire.plays((CHUNKED,))
    narrow = Sender(max_connections=1)
    await narrow.start()
    await narrow.send(outbound(wire.url))
    waiting = asyncio.create_task(narrow.send(outbound(wire.url)))
    connecting = asyncio.create_task(sender.send(outbound(wire.url.replace("http:", "https:"))))
    await wire.connections(2)

    await narrow.close()
    await sender.close()

    for task in (waiting, connecting):
        error = await failure(task)
        assert (error.kind, error.phase) == (ErrorKind.ERROR_KIND_CANCELLED, Phase.CONNECT)
    await soon(wire.peers[1].gone.wait())


@on_both_loops
async def test_a_cancellation_stays_one_when_the_sender_closes_too(wire: Wire, sender: Sender) -> None:
    connecting = asyncio.create_task(sender.send(outbound(wire.url.replace("http:", "https:"))))
    await wire.connections(1)

    connecting.cancel()
    await sender.close()

    with pytest.raises(asyncio.CancelledError):
        await connecting


@on_both_loops
async def test_a_sender_that_is_not_started_says_so(wire: Wire, sender: Sender) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        await Sender().send(outbound(wire.url))


# Pooled connections that turn out to be closed


@pytest.mark.parametrize("end", [CLOSE, RESET])
@on_both_loops
async def test_a_pooled_connection_that_was_closed_is_replaced_once_without_being_noticed(
    wire: Wire, sender: Sender, end: Step
) -> None:
    wire.plays((whole(b"one"),), (end,), (whole(b"two"),))

    assert await unary(sender, outbound(wire.url)) == b"one"
    assert await unary(sender, outbound(wire.url)) == b"two"

    assert [len(peer.heads) for peer in wire.peers] == [2, 1]


@on_both_loops
async def test_a_request_is_repeated_over_a_new_connection_where_all_pooled_ones_were_closed(wire: Wire, sender: Sender) -> None:
    go = asyncio.Event()
    wire.plays((go, whole(b"one")))
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(unary(sender, outbound(wire.url)))
        await wire.requests(3)
        go.set()
    # A provider that was restarted: whatever its idle connections are asked, they only end.
    wire.plays(*[()] * 3, (CLOSE,), (whole(b"two"),))

    assert await unary(sender, outbound(wire.url)) == b"two"

    # One was tried, the new one served, and the other idle ones were closed unasked.
    assert sorted(len(peer.heads) for peer in wire.peers) == [1, 1, 1, 2]
    for peer in wire.peers[:3]:
        await soon(peer.gone.wait())


@on_both_loops
async def test_a_pooled_connection_whose_end_was_seen_is_not_tried(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"), CLOSE), (whole(b"two"),))

    assert await unary(sender, outbound(wire.url)) == b"one"
    await soon(wire.peers[0].gone.wait())
    await turn_over(sender)
    assert await unary(sender, outbound(wire.url, repeatable=False)) == b"two"

    assert [len(peer.heads) for peer in wire.peers] == [1, 1]


@on_both_loops
async def test_a_connection_that_idles_too_long_is_closed(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),))

    async with Sender(keepalive_seconds=0.05) as impatient:
        assert await unary(impatient, outbound(wire.url)) == b"one"
        await soon(wire.peers[0].gone.wait())


@on_both_loops
async def test_a_request_is_repeated_once_at_most_and_the_error_says_so(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),), (CLOSE,))
    await unary(sender, outbound(wire.url))

    error = await failure(sender.send(outbound(wire.url)))

    assert (error.kind, error.repeated) == (NETWORK, True)
    assert len(wire.heads) == 3


@on_both_loops
async def test_a_request_that_creates_something_is_not_repeated(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),), (CLOSE,))
    await unary(sender, outbound(wire.url))

    error = await failure(sender.send(outbound(wire.url, repeatable=False)))

    assert (error.kind, error.repeated, error.request_sent) == (NETWORK, False, True)
    assert len(wire.heads) == 2


@on_both_loops
async def test_a_request_is_not_repeated_once_an_answer_had_begun(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),), (b"HTTP/1.1 2", CLOSE))
    await unary(sender, outbound(wire.url))

    error = await failure(sender.send(outbound(wire.url)))

    assert (error.kind, error.repeated) == (NETWORK, False)
    assert len(wire.heads) == 2


@on_both_loops
async def test_a_request_is_not_repeated_after_the_provider_had_time_to_work_on_it(
    wire: Wire, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "_STALE_SECONDS", 0.0)
    wire.plays((whole(b"one"),), (CLOSE,))
    await unary(sender, outbound(wire.url))

    error = await failure(sender.send(outbound(wire.url)))

    assert (error.kind, error.repeated) == (NETWORK, False)


@on_both_loops
async def test_a_repeated_request_keeps_its_total(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one"),), (CLOSE,), ())
    await unary(sender, outbound(wire.url))

    error = await failure(sender.send(outbound(wire.url, timeouts=Timeouts(60, 60, 60, 0.5))))

    assert (error.kind, error.phase, error.repeated) == (TIMEOUT, Phase.TOTAL, True)


@on_both_loops
async def test_what_comes_over_an_idle_connection_is_not_the_next_answer(wire: Wire, sender: Sender) -> None:
    late = asyncio.Event()
    wire.plays((whole(b"one"), late, whole(b"poison", "408 Request Timeout")), (whole(b"two"),))
    assert await unary(sender, outbound(wire.url)) == b"one"

    late.set()
    await wire.peers[0].writer.drain()
    await turn_over(sender)
    response = await sender.send(outbound(wire.url))

    assert (response.status, await response.read(1024)) == (200, b"two")


@on_both_loops
async def test_what_comes_behind_an_answer_is_not_the_next_one(wire: Wire, sender: Sender) -> None:
    wire.plays((whole(b"one") + whole(b"poison"),), (whole(b"two"),))

    assert [await unary(sender, outbound(wire.url)) for _ in range(2)] == [b"one", b"two"]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@on_both_loops
async def test_https_is_spoken_and_its_connections_are_kept(
    wire: Wire, sender: Sender, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with Wire(server_tls) as secure, Sender(ssl_context=client_tls) as trusting:
        secure.plays((CHUNKED + chunk(b"a") + END,))
        assert [await unary(trusting, outbound(secure.url, body=bytes(100_000))) for _ in range(2)] == [b"a", b"a"]
        assert len(secure.peers) == 1


@on_both_loops
async def test_cancellation_closes_a_socket_under_tls_without_waiting_for_a_farewell(
    wire: Wire, sender: Sender, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with Wire(server_tls) as secure, Sender(ssl_context=client_tls) as trusting:
        sending = asyncio.create_task(trusting.send(outbound(secure.url)))
        await secure.requests(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await soon(secure.peers[0].gone.wait())


@on_both_loops
async def test_a_certificate_of_an_unknown_authority_is_refused(wire: Wire, sender: Sender, server_tls: ssl.SSLContext) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's own complaint that the handshake failed
    async with Wire(server_tls) as secure:
        error = await failure(sender.send(outbound(secure.url)))

    assert (error.kind, error.phase) == (NETWORK, Phase.CONNECT)
    assert "certificate that cannot be trusted" in error.message


@on_both_loops
async def test_a_certificate_for_another_host_is_refused(
    wire: Wire, sender: Sender, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's own complaint that the handshake failed
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(other)
    async with Wire(other) as secure, Sender(ssl_context=client_tls) as trusting:
        error = await failure(trusting.send(outbound(secure.url)))

    assert (error.kind, error.phase) == (NETWORK, Phase.CONNECT)
    assert "certificate that cannot be trusted" in error.message


BY_THE_SYSTEM = """
import asyncio, ssl, sys
from tests.gateway.providers.test_sender import unary
from tests.gateway.providers.wire import Sender, Wire, outbound, whole

async def main():
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(sys.argv[1])
    async with Wire(server_tls) as secure, Sender() as sender:
        secure.plays((whole(b"trusted"),))
        print((await unary(sender, outbound(secure.url))).decode())

asyncio.run(main())
"""


def test_the_authorities_that_the_system_trusts_are_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    # OpenSSL takes the variable for the place of the system's authorities. It is read when a process loads them.
    environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "system.pem"), "PYTHONPATH": os.pathsep.join(sys.path)}

    ran = subprocess.run(
        [sys.executable, "-c", BY_THE_SYSTEM, tmp_path / "server.pem"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (ran.stdout, ran.stderr) == ("trusted\n", "")


@on_both_loops
async def test_https_to_a_provider_that_speaks_http_is_told(wire: Wire, sender: Sender) -> None:
    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            writable = cast("asyncio.Transport", transport)
            writable.write(whole(b"this is http"))
            writable.close()

    server = await asyncio.get_running_loop().create_server(Greeter, "127.0.0.1", 0)
    async with server:
        error = await failure(sender.send(outbound(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")))

    assert (error.kind, error.phase, error.request_sent) == (NETWORK, Phase.CONNECT, False)
