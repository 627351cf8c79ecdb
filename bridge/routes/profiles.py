"""/debug/pprof/: profiles for `go tool pprof`, and a list of them for people. AdminService.Profile makes them."""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

import grpc
from aiohttp import web
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.call import Call
from bridge.errors import BridgeError
from bridge.rpc import Rpc

_SUMMARIES: Final[Mapping[str, str]] = {
    "allocs": "What is allocated during the profile (5 s unless <code>seconds</code> says).",
    "block": "What holds the event loop up for 50 ms or longer (10 s).",
    "cmdline": "How the process was started.",
    "goroutine": "Where each task of the event loop and each thread stands; <code>debug=1</code> for text.",
    "heap": "What is allocated during the profile and still there (5 s).",
    "mutex": "Who waits for locks, and for how long (10 s).",
    "profile": "Where processor time is spent (30 s).",
    "threadcreate": "Where each thread stands.",
}


class ProfileRoutes:
    """Routes of profiles.

    Attributes:
        make: The RPC.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the routes over a channel to the core."""
        self.make = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name["Profile"]
        self._make = Rpc.of(AdminServiceStub(channel), self.make)

    async def index(self, call: Call) -> web.StreamResponse:
        """Lists the profiles. It asks for one that shows a moment, so that only those see the list who may make one."""
        await self._first(call, admin_pb2.ProfileRequest(kind="cmdline"))
        rows = "".join(f'<tr><td><a href="{name}">{name}</a></td><td>{text}</td></tr>' for name, text in _SUMMARIES.items())
        page = f"<!doctype html><html><head><title>/debug/pprof/</title></head><body><table>{rows}</table></body></html>"
        return web.Response(text=page, headers=call.answer_headers("text/html; charset=utf-8"))

    async def profile(self, call: Call) -> web.StreamResponse:
        """Makes a profile and gives it."""
        query = call.http.query
        request = admin_pb2.ProfileRequest(kind=call.variables["kind"], debug=int(_number(query.get("debug", "0"), "debug")))
        if "seconds" in query:
            request.seconds = _number(query["seconds"], "seconds")
        message, messages = await self._first(call, request)
        headers = call.answer_headers(message.content_type)
        headers["X-Content-Type-Options"] = "nosniff"
        if message.content_type == "application/octet-stream":
            headers["Content-Disposition"] = f'attachment; filename="{request.kind}"'
        response = web.StreamResponse(headers=headers)
        call.answering = True
        await response.prepare(call.http)
        while message is not grpc.aio.EOF:
            await response.write(message.content)
            message = await messages.read()
        await response.write_eof()
        return response

    async def _first(self, call: Call, request: admin_pb2.ProfileRequest) -> tuple[Any, Any]:
        _take_basic(call)
        messages = call.stream(self._make, request)
        return await messages.read(), messages


def _take_basic(call: Call) -> None:
    """Takes the password of basic authentication for the token: `go tool pprof` can send a credential in no other way."""
    scheme, _, given = call.http.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        call.token = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise BridgeError(
            ErrorKind.ERROR_KIND_AUTH_FAILED, "The credential is malformed. Give the token as the password."
        ) from None


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e6 or (name == "debug" and value != int(value)):
        raise BridgeError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{name}' cannot be {text[:64]!r}.", param=name)
    return value
