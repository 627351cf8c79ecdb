"""`twinspan reload`: has a running gateway read its configuration again, over either surface."""

import argparse
import os
import sys
from typing import Any

import grpc
import httpx
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem
from bridge.transcoding import as_json

_CONNECT_SECONDS, _SECONDS = 5.0, 120.0


async def run_reload(arguments: argparse.Namespace) -> None:
    """Has the configuration read again, and says what came of it."""
    token = arguments.token or os.environ.get("TWINSPAN_TOKEN") or ""
    if arguments.grpc:
        done = await _over_grpc(arguments.grpc, token)
    else:
        url = arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080"
        done = await _over_rest(url.rstrip("/").removesuffix("/v1"), token)
    for warning in done["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    processes = f" by {done['processes']} processes" if done["processes"] > 1 else ""
    print(f"The configuration was reloaded{processes} ({', '.join(done['sources']) or 'no file: defaults'}).")


async def _over_rest(url: str, token: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS)) as http:
        try:
            response = await http.post(f"{url}/v1/admin/reload", json={})
        except httpx.TransportError as error:
            raise Problem(f"{url} does not answer ({type(error).__name__}). Is the gateway running?") from error
    if response.status_code != httpx.codes.OK:
        raise rest_problem(response.status_code, response.content)
    found: dict[str, Any] = response.json()
    return found


async def _over_grpc(target: str, token: str) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(target) as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        try:
            answer = await AdminServiceStub(channel).ReloadConfig(
                admin_pb2.ReloadConfigRequest(), metadata=metadata, timeout=_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(target, error) from error
    return as_json(answer)
