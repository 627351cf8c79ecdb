"""The routes of files that are no plain resources: content in and out. The plain ones come from the annotations."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import grpc
from aiohttp import web
from twinspan.v1 import files_pb2
from twinspan.v1.errors_pb2 import ErrorKind
from twinspan.v1.files_pb2_grpc import FilesServiceStub

from bridge.call import Call
from bridge.dialects import files
from bridge.errors import Failure
from bridge.multipart import Form, Part, malformed
from bridge.ranges import Range, UnsatisfiableError, wanted
from bridge.rpc import Rpc
from bridge.transcoding import Renderer

RENDERERS: Mapping[str, Renderer] = {
    "StoredFile": lambda _call, file: files.file_object(file),
    "FilesServiceListResponse": lambda _call, response: files.file_list(response),
    "FilesServiceDeleteResponse": lambda _call, response: files.deletion(response),
}
"""Writers of responses, by message name."""


class FilesRoutes:
    """Uploads and downloads."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Makes the routes over a channel to the core."""
        stub = FilesServiceStub(channel)
        methods = files_pb2.DESCRIPTOR.services_by_name["FilesService"].methods_by_name
        self._upload = Rpc.of(stub, methods["Upload"])
        self._get = Rpc.of(stub, methods["Get"])
        self._download = Rpc.of(stub, methods["Download"])

    async def upload(self, call: Call) -> web.StreamResponse:
        """Takes a file from a form, whose fields may come in any order."""
        form = Form(call.http.headers.get("Content-Type", ""), call.http.content)
        description = files_pb2.FileDescription()
        has_file = False
        upload = call.upload(self._upload)
        await upload.begun()
        await call.invite_body()
        async for part in form.parts():
            if part.name != "file":
                await _describe(description, part)
                continue
            if has_file or part.filename is None:
                raise malformed("'file' must be one file", "file")
            has_file = True
            description.filename = part.filename
            async for piece in part:
                await upload.write(files_pb2.FilesServiceUploadRequest(content=piece))
        if not has_file:
            raise malformed("'file' must be given", "file")
        await upload.write(files_pb2.FilesServiceUploadRequest(description=description))
        answer = await upload.end()
        return call.json(files.file_object(answer.file))

    async def content(self, call: Call) -> web.StreamResponse:
        """Gives what a file holds, or the part of it that `Range` names."""
        id_ = call.variables["id"]
        headers = call.http.headers
        if call.http.method != "HEAD" and "Range" not in headers:
            return await self._send(call, files_pb2.FilesServiceDownloadRequest(id=id_), None)
        file = await call.unary(self._get, files_pb2.FilesServiceGetRequest(id=id_))
        asked = headers.get("Range", "") if headers.get("If-Range", _etag(file)) == _etag(file) else ""
        try:
            part = wanted(asked, file.bytes)
        except UnsatisfiableError:
            return _unsatisfiable(call, file.bytes)
        if call.http.method == "HEAD":
            return web.Response(headers=_headers(call, file, None))
        request = files_pb2.FilesServiceDownloadRequest(id=id_)
        if part is not None:
            request.offset, request.length = part.first, part.length
        return await self._send(call, request, part)

    async def _send(self, call: Call, request: files_pb2.FilesServiceDownloadRequest, part: Range | None) -> web.StreamResponse:
        messages = call.stream(self._download, request)
        message: Any = await messages.read()
        response = web.StreamResponse(status=206 if part else 200, headers=_headers(call, message.file, part))
        call.answering = True
        await response.prepare(call.http)
        while message is not grpc.aio.EOF:
            if message.content:
                await response.write(message.content)
            message = await messages.read()
        await response.write_eof()
        return response


async def _describe(description: files_pb2.FileDescription, part: Part) -> None:
    """Reads a field that says something of the file."""
    match part.name:
        case "purpose":
            description.purpose = await part.text()
        case "expires_after[anchor]":
            if await part.text() != "created_at":
                raise malformed("'expires_after[anchor]' must be 'created_at'", part.name)
        case "expires_after[seconds]":
            text = await part.text()
            if not (text.isascii() and text.isdigit() and len(text) <= 10):
                raise malformed("'expires_after[seconds]' must be a number", part.name)
            description.expires_after_seconds = int(text)
        case _:
            pass  # what other servers of this interface know


def _headers(call: Call, file: files_pb2.StoredFile, part: Range | None) -> dict[str, str]:
    headers = call.answer_headers("application/octet-stream")
    headers["Content-Length"] = str(part.length if part else file.bytes)
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}"
    headers["Accept-Ranges"] = "bytes"
    headers["ETag"] = _etag(file)
    headers["X-Content-Type-Options"] = "nosniff"
    if part is not None:
        headers["Content-Range"] = f"bytes {part.first}-{part.last}/{file.bytes}"
    return headers


def _etag(file: files_pb2.StoredFile) -> str:
    return f'"{file.id}"'  # what a file holds never changes


def _unsatisfiable(call: Call, size: int) -> web.Response:
    failure = Failure(
        ErrorKind.ERROR_KIND_INVALID_REQUEST, 416, f"The file has {size} bytes, and none of them is in this range.", param="Range"
    )
    call.failed(failure)
    call.headers["Content-Range"] = f"bytes */{size}"
    return call.json(failure.openai_body(), failure.status)
