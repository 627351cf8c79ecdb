"""Calls KeysService over either surface. The answers are the same, in the form of REST."""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.api import annotations_pb2
from google.protobuf.message import Message
from twinspan.v1 import keys_pb2
from twinspan.v1.keys_pb2_grpc import KeysServiceStub

from bridge.cli.chat import credential
from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem
from bridge.transcoding import as_json

_CONNECT_SECONDS = 5.0


class Administrator(Protocol):
    """Asks for what administrators may."""

    async def ask(self, method: str, request: Message) -> dict[str, Any]:
        """Calls a method of KeysService and returns its answer.

        Raises:
            Problem: It failed.
        """


def administrator(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Administrator]:
    """Returns an administrator with the connection and the credential that a command was given."""
    token = credential(arguments)
    if arguments.grpc:
        return _over_grpc(arguments.grpc, token)
    url = arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080"
    return _over_rest(url.rstrip("/").removesuffix("/v1"), token)


class _Rest:
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def ask(self, method: str, request: Message) -> dict[str, Any]:
        rule = (
            keys_pb2.DESCRIPTOR.services_by_name["KeysService"]
            .methods_by_name[method]
            .GetOptions()
            .Extensions[annotations_pb2.http]
        )
        verb = rule.WhichOneof("pattern")
        said = _said(request)
        path = getattr(rule, verb)
        for name in [name for name in said if f"{{{name}}}" in path]:
            path = path.replace(f"{{{name}}}", quote(str(said.pop(name)), safe=""))
        given: dict[str, Any] = {"json": said} if rule.body else {"params": said}
        try:
            response = await self._http.request(verb.upper(), f"{self._url}{path}", **given)
        except httpx.TransportError as error:
            raise Problem(f"{self._url} does not answer ({type(error).__name__}). Is the gateway running?") from error
        if response.status_code != httpx.codes.OK:
            raise rest_problem(response.status_code, response.content)
        answer: dict[str, Any] = response.json()
        return answer


class _Grpc:
    def __init__(self, target: str, channel: grpc.aio.Channel, token: str) -> None:
        self._target = target
        self._stub = KeysServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def ask(self, method: str, request: Message) -> dict[str, Any]:
        try:
            return as_json(await getattr(self._stub, method)(request, metadata=self._metadata))
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(self._target, error) from error


def _said(request: Message) -> dict[str, Any]:
    """Returns what a request says, by field, with null for what its mask names and it does not give."""
    given: dict[str, Any] = {field.name: list(value) if field.is_repeated else value for field, value in request.ListFields()}
    mask = given.pop("update_mask", None)
    return {**dict.fromkeys(mask.paths if mask is not None else ()), **given}


@asynccontextmanager
async def _over_rest(url: str, token: str) -> AsyncIterator[Administrator]:
    timeout = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as http:
        yield _Rest(url, http)


@asynccontextmanager
async def _over_grpc(target: str, token: str) -> AsyncIterator[Administrator]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield _Grpc(target, channel, token)
