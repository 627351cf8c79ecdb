"""Files as OpenAI's clients read them.

Source: https://platform.openai.com/docs/api-reference/files/object.
"""

from typing import Any

import orjson
from twinspan.v1 import files_pb2


def file_object(file: files_pb2.StoredFile) -> bytes:
    """Returns a file."""
    return orjson.dumps(_file(file))


def file_list(response: files_pb2.FilesServiceListResponse) -> bytes:
    """Returns a page of files."""
    return orjson.dumps(page([_file(file) for file in response.files], has_more=response.has_more))


def deletion(response: files_pb2.FilesServiceDeleteResponse) -> bytes:
    """Returns what says that a file is gone."""
    return orjson.dumps({"id": response.id, "object": "file", "deleted": True})


def page(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Returns a page of a list, as all of OpenAI's lists by cursor are."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _file(file: files_pb2.StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at if file.HasField("expires_at") else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",  # a file that can be seen is ready; OpenAI calls the field deprecated and still sends it
        "status_details": None,
    }
