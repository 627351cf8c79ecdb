"""Forwarding where the bridge is a process of its own, the core another, and the provider speaks TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from tests.flows.commands import configure, started
from tests.flows.running import TOKEN
from tests.flows.wire import Taken, Wire, raw_exchange

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PIECE = bytes(range(256)) * 256


async def play(taken: Taken, writer: asyncio.StreamWriter) -> None:
    """Echoes a body; of a request without one, answers two events, and then waits until the client is gone."""
    if taken.method == "POST":
        body = await taken.body()
        writer.write(b"HTTP/1.1 201 Created\r\nX-Own: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n0\r\nX-Sum: %d\r\n\r\n" % (len(body), body, len(body)))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
    await taken.reader.read()


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[tuple[str, Wire]]:
    """Gives the URL of a bridge, and the provider behind its core."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    variables = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "TWINSPAN_SECRETS_DIR": str(tmp_path / "secrets")}
    async with Wire(play, context) as wire:
        configure(tmp_path, wire.base_url)
        async with started("core", cwd=tmp_path, **variables) as core:
            target = (await core.until(r"^gRPC\s+(\S+)"))[1]
            async with started("bridge", "--core", target, cwd=tmp_path, **variables) as bridge:
                yield (await bridge.until(r"^REST\s+(http\S+)/v1"))[1], wire


async def test_a_body_and_its_trailers_pass_both_ways(apart: tuple[str, Wire]) -> None:
    url, wire = apart
    head = f"POST /proxy/acme/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nTE: trailers\r\n"
    request = f"{head}Content-Length: {len(PIECE)}\r\n\r\n".encode() + PIECE
    answer = await raw_exchange(urlsplit(url).port or 0, request)
    status, _, rest = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 201 Created\r\n")
    assert PIECE in rest
    assert rest.endswith(b"X-Sum: %d\r\n\r\n" % len(PIECE))
    assert wire.taken[0].field("Authorization") == "Bearer upstream-secret-key"


async def test_events_pass_as_they_come_and_a_client_that_leaves_is_gone_at_the_provider(apart: tuple[str, Wire]) -> None:
    url, wire = apart
    async with httpx.AsyncClient(base_url=url, headers=AUTHORIZED, timeout=5) as client:
        async with client.stream("GET", "/proxy/acme/events") as answer:
            lines = answer.aiter_lines()
            assert [await anext(lines), await anext(lines), await anext(lines)] == ["data: 1", "", "data: 2"]
        async with asyncio.timeout(5):
            await wire.taken[0].gone.wait()


async def test_what_must_not_be_forwarded_is_refused_there_as_well(apart: tuple[str, Wire]) -> None:
    url, wire = apart
    for path, status in (("/proxy/acme/%2e%2e/x", 400), ("/proxy/nobody/x", 404)):
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        answer = await raw_exchange(urlsplit(url).port or 0, head.encode())
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert wire.taken == []
