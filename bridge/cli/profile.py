"""`twinspan profile`: a profile of a running gateway, into a file for `go tool pprof` or as text, over either surface."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import grpc
import httpx
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem

_CONNECT_SECONDS = 5.0
_USUAL = {"profile": 30.0, "block": 10.0, "mutex": 10.0, "heap": 5.0, "allocs": 5.0}


async def run_profile(arguments: argparse.Namespace) -> None:
    """Makes a profile and writes it where the arguments say."""
    seconds = arguments.seconds or _USUAL.get(arguments.kind, 0.0)
    output: str = arguments.output or ("-" if arguments.text else f"{arguments.kind}.pb.gz")
    if output == "-":
        await _write(arguments, seconds, sys.stdout.buffer)
        return
    path = Path(output)
    partial = path.with_name(f"{path.name}.part")
    try:
        with await asyncio.to_thread(partial.open, "wb") as file:
            await _write(arguments, seconds, file)
        await asyncio.to_thread(partial.replace, path)
    except OSError as error:
        raise Problem(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        await asyncio.to_thread(partial.unlink, missing_ok=True)
    print(f"{path} is written. Look at it with: go tool pprof -http=: {path}", file=sys.stderr)


async def _write(arguments: argparse.Namespace, seconds: float, file: BinaryIO) -> None:
    if seconds:
        print(f"profiling for {seconds:g} s, Ctrl-C to stop", file=sys.stderr)
    token = arguments.token or os.environ.get("TWINSPAN_TOKEN") or ""
    request = admin_pb2.ProfileRequest(kind=arguments.kind, debug=int(arguments.text))
    if seconds:
        request.seconds = seconds
    if arguments.grpc:
        pieces = _over_grpc(arguments.grpc, token, request)
    else:
        pieces = _over_rest(arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080", token, request)
    async with aclosing(pieces):
        async for piece in pieces:
            file.write(piece)
        file.flush()


async def _over_rest(url: str, token: str, request: admin_pb2.ProfileRequest) -> AsyncGenerator[bytes, None]:
    url = url.rstrip("/").removesuffix("/v1")
    query = {"debug": str(request.debug)} | ({"seconds": str(request.seconds)} if request.HasField("seconds") else {})
    timeout = httpx.Timeout(request.seconds + 60.0, connect=_CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, headers=headers) as http,
            http.stream("GET", f"{url}/debug/pprof/{request.kind}", params=query) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise rest_problem(response.status_code, await response.aread())
            async for piece in response.aiter_bytes():
                yield piece
    except httpx.TransportError as error:
        raise Problem(f"{url} does not answer ({type(error).__name__}). Is the gateway running?") from error


async def _over_grpc(target: str, token: str, request: admin_pb2.ProfileRequest) -> AsyncGenerator[bytes, None]:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            async for message in AdminServiceStub(channel).Profile(request, metadata=metadata):
                yield message.content
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(target, error) from error
