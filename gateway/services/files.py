"""FilesService: files that callers keep at the gateway."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from twinspan.v1 import files_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.backends.choice import Files
from gateway.errors import GatewayError
from gateway.files.description import Description
from gateway.files.store import Entry
from gateway.rpc.call import RpcCall
from gateway.services.ownership import caller_name, sees_only

_MOST_LISTED = 10_000


class FilesService:
    """Serves `twinspan.v1.FilesService`."""

    def __init__(self, files: Callable[[RpcCall], Files]) -> None:
        """Makes the service over what returns where a caller's files are."""
        self._files = files

    async def Upload(  # noqa: N802 (the RPC's name)
        self, requests: AsyncIterator[files_pb2.FilesServiceUploadRequest], call: RpcCall
    ) -> files_pb2.FilesServiceUploadResponse:
        """Takes a file."""
        description: Description | None = None
        files = self._files(call)
        async with await files.begin() as upload:
            await call.announce()
            async for request in requests:
                match request.WhichOneof("piece"):
                    case "content":
                        await upload.write(request.content)
                    case "description" if description is None:
                        description = Description.of(request.description, provider=files.provider)
                    case "description":
                        raise _invalid("description", "must be given once")
                    case _:
                        raise _invalid("piece", "must be a description or content")
            if description is None:
                raise _invalid("purpose", "must be given")
            entry = await files.commit(upload, caller_name(call), description)
        return files_pb2.FilesServiceUploadResponse(file=_file(entry))

    async def List(  # noqa: N802 (the RPC's name)
        self, request: files_pb2.FilesServiceListRequest, call: RpcCall
    ) -> files_pb2.FilesServiceListResponse:
        """Lists the caller's files."""
        if request.order not in {"", "asc", "desc"}:
            raise _invalid("order", "must be 'asc' or 'desc'")
        entries, more = await self._files(call).list(
            sees_only(call),
            purpose=request.purpose,
            limit=page_limit(request.limit if request.HasField("limit") else None, _MOST_LISTED, _MOST_LISTED),
            after=request.after,
            ascending=request.order == "asc",
        )
        return files_pb2.FilesServiceListResponse(files=[_file(entry) for entry in entries], has_more=more)

    async def Get(self, request: files_pb2.FilesServiceGetRequest, call: RpcCall) -> files_pb2.StoredFile:  # noqa: N802 (the RPC's name)
        """Returns what is known of a file."""
        return _file(await self._files(call).get(request.id, sees_only(call)))

    async def Download(self, request: files_pb2.FilesServiceDownloadRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Gives what a file holds."""
        files = self._files(call)
        entry = await files.get(request.id, sees_only(call))
        if not 0 <= request.offset <= entry.bytes:
            raise _invalid("offset", f"must be between 0 and the file's {entry.bytes} bytes")
        length = request.length if request.HasField("length") else None
        if length is not None and length < 0:
            raise _invalid("length", "must not be negative")
        first = files_pb2.FilesServiceDownloadResponse(file=_file(entry))
        async with aclosing(files.read(entry, request.offset, length)) as pieces:
            async for piece in pieces:
                first.content = piece
                await call.write(first)
                first = files_pb2.FilesServiceDownloadResponse()
        if first.HasField("file"):
            await call.write(first)

    async def Delete(  # noqa: N802 (the RPC's name)
        self, request: files_pb2.FilesServiceDeleteRequest, call: RpcCall
    ) -> files_pb2.FilesServiceDeleteResponse:
        """Deletes a file."""
        await self._files(call).delete(request.id, sees_only(call))
        return files_pb2.FilesServiceDeleteResponse(id=request.id)


def page_limit(given: int | None, default: int, most: int) -> int:
    """Returns how many entries a page may have.

    Raises:
        GatewayError: What was asked for is no such number.
    """
    if given is None:
        return default
    if not 1 <= given <= most:
        raise _invalid("limit", f"must be between 1 and {most}")
    return given


def _file(entry: Entry) -> files_pb2.StoredFile:
    return files_pb2.StoredFile(
        id=entry.id,
        bytes=entry.bytes,
        created_at=entry.created_at,
        expires_at=entry.expires_at,
        filename=entry.filename,
        purpose=entry.purpose,
    )


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{param}' {what}.", param=param)
