"""Batches as OpenAI's clients read and write them.

Source: https://platform.openai.com/docs/api-reference/batch.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from twinspan.v1 import batches_pb2

from bridge.dialects.fields import OBJECT, InvalidFieldError, Reader, decoded, invalid
from bridge.dialects.files import page

_METADATA = msgspec.json.Decoder(dict[str, str] | None)
_OPTIONAL = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
    *("output_file_id", "error_file_id"),
)


def read_order(body: bytes) -> batches_pb2.BatchesServiceCreateRequest:
    """Reads the body of POST /v1/batches.

    Raises:
        InvalidFieldError: It is not a JSON object, or a field has the wrong type.
    """
    try:
        fields = OBJECT.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error, "a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidFieldError("is not valid JSON") from None
    request = batches_pb2.BatchesServiceCreateRequest()
    name = ""
    try:
        for name, raw in fields.items():
            if (reader := _ORDER.get(name)) is not None:  # a body may hold what other servers of this interface know
                reader(request, raw)
    except InvalidFieldError as error:
        raise error.within(name) from None
    return request


def batch_object(batch: batches_pb2.Batch) -> bytes:
    """Returns a batch."""
    return orjson.dumps(_batch(batch))


def batch_list(response: batches_pb2.BatchesServiceListResponse) -> bytes:
    """Returns a page of batches."""
    return orjson.dumps(page([_batch(batch) for batch in response.batches], has_more=response.has_more))


def _metadata(request: Any, raw: msgspec.Raw) -> None:
    request.metadata.update(decoded(_METADATA, raw, "an object of strings") or {})


def _text(attribute: str) -> Reader:
    decoder = msgspec.json.Decoder(str)

    def read(request: Any, raw: msgspec.Raw) -> None:
        setattr(request, attribute, decoded(decoder, raw, "a string"))

    return read


class _Lifetime(msgspec.Struct):
    anchor: str
    seconds: int


_LIFETIME = msgspec.json.Decoder(_Lifetime | None)


def _output_lifetime(request: Any, raw: msgspec.Raw) -> None:
    lifetime = decoded(_LIFETIME, raw, "an object with 'anchor' and 'seconds'")
    if lifetime is None:
        return
    if lifetime.anchor != "created_at":
        raise InvalidFieldError("must be 'created_at'", "anchor")
    if not -(2**63) <= lifetime.seconds < 2**63:
        raise InvalidFieldError("must be a number of seconds", "seconds")
    request.output_expires_after_seconds = lifetime.seconds


_ORDER: Mapping[str, Reader] = {
    "input_file_id": _text("input_file_id"),
    "endpoint": _text("endpoint"),
    "completion_window": _text("completion_window"),
    "metadata": _metadata,
    "output_expires_after": _output_lifetime,
}


def _batch(batch: batches_pb2.Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": [_error(error) for error in batch.errors]} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batches_pb2.BatchStatus.Name(batch.status).removeprefix("BATCH_STATUS_").lower(),
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **{name: getattr(batch, name) if batch.HasField(name) else None for name in _OPTIONAL},  # type: ignore[arg-type]  # their names
        "request_counts": {
            "total": batch.total_requests,
            "completed": batch.completed_requests,
            "failed": batch.failed_requests,
        },
        "metadata": dict(batch.metadata) or None,
    }


def _error(error: batches_pb2.BatchError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "line": error.line if error.HasField("line") else None,
        "param": error.param if error.HasField("param") else None,
    }
