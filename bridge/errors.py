"""Errors as HTTP clients see them: always JSON, always of one shape, whoever made the error.

An error is the bridge's own (`BridgeError`) or the core's (a failed RPC). Both become a `Failure`, which a dialect renders in its
own envelope. The HTTP status of a kind is stated in `proto/twinspan/v1/errors.proto`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import grpc
import orjson
from google.rpc import error_details_pb2, status_pb2
from twinspan.v1 import annotations_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.dialects.fields import InvalidFieldError

INTERNAL_MESSAGE = "The gateway failed. The details are in its log, under this answer's x-request-id."
_STATUS_DETAILS = "grpc-status-details-bin"
_KINDS: Mapping[str, ErrorKind.ValueType] = {name.removeprefix("ERROR_KIND_"): value for name, value in ErrorKind.items()}
_KINDS_OF_CODES: Mapping[grpc.StatusCode, ErrorKind.ValueType] = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorKind.ERROR_KIND_INVALID_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: ErrorKind.ERROR_KIND_AUTH_FAILED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorKind.ERROR_KIND_PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND: ErrorKind.ERROR_KIND_NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
    grpc.StatusCode.CANCELLED: ErrorKind.ERROR_KIND_CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorKind.ERROR_KIND_DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: ErrorKind.ERROR_KIND_OVERLOADED,
}
_OPENAI_TYPES: Mapping[ErrorKind.ValueType, str] = {
    ErrorKind.ERROR_KIND_AUTH_FAILED: "authentication_error",
    ErrorKind.ERROR_KIND_PERMISSION_DENIED: "permission_error",
    ErrorKind.ERROR_KIND_RATE_LIMITED: "rate_limit_error",
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: "insufficient_quota",
    ErrorKind.ERROR_KIND_BUDGET_EXCEEDED: "insufficient_quota",
    ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT: "timeout_error",
    ErrorKind.ERROR_KIND_DEADLINE_EXCEEDED: "timeout_error",
}
_OPENAI_CODES: Mapping[ErrorKind.ValueType, str] = {
    ErrorKind.ERROR_KIND_AUTH_FAILED: "invalid_api_key",
    ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED: "context_length_exceeded",
    ErrorKind.ERROR_KIND_RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED: "insufficient_quota",
}
_RETRY_IS_FUTILE = frozenset(
    {
        ErrorKind.ERROR_KIND_INTERNAL_ERROR,
        ErrorKind.ERROR_KIND_NOT_CONFIGURED,
        ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
        ErrorKind.ERROR_KIND_BUDGET_EXCEEDED,
        ErrorKind.ERROR_KIND_CONFLICT,
    }
)
_DEFAULT_RETRY_AFTER_SECONDS = 1


class BridgeError(Exception):
    """A request that the bridge itself cannot pass on.

    Attributes:
        kind: What is wrong.
        message: A sentence for the client that says what to do next.
        param: The path of the field at fault, if there is one.
    """

    def __init__(self, kind: ErrorKind.ValueType, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request, ready to be rendered.

    Attributes:
        kind: What went wrong.
        status: The HTTP status.
        message: A sentence for the client.
        type: The provider's `type`, if the error is the provider's own.
        param: The path of the field at fault, if there is one.
        code: The provider's `code`, if the error is the provider's own; or the gateway's, if it has one beside the kind.
        retry_after_seconds: When a retry may succeed; None if that is not known.
        attempts: How often providers were asked.
        metadata: The failed RPC's trailing metadata.
    """

    kind: ErrorKind.ValueType
    status: int
    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after_seconds: float | None = None
    attempts: int = 0
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def kind_name(self) -> str:
        """The kind in lower snake case."""
        return ErrorKind.Name(self.kind).removeprefix("ERROR_KIND_").lower()

    def headers(self) -> dict[str, str]:
        """Returns the headers that tell a client whether and when to try again.

        `x-should-retry` keeps a client library from retrying what the gateway has retried already, or what cannot get better.
        """
        headers: dict[str, str] = {}
        if self.status in (429, 503) or self.retry_after_seconds is not None:
            seconds = self.retry_after_seconds
            headers["Retry-After"] = str(_DEFAULT_RETRY_AFTER_SECONDS if seconds is None else -int(-seconds // 1))
        if self.kind in _RETRY_IS_FUTILE or self.attempts > 1:
            headers["x-should-retry"] = "false"
        return headers

    def openai_body(self) -> bytes:
        """Returns the error in OpenAI's envelope."""
        return orjson.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": self.type or _OPENAI_TYPES.get(self.kind) or self._default_type(),
                    "param": self.param,
                    "code": self.code or _OPENAI_CODES.get(self.kind) or self.kind_name,
                },
                "error_kind": self.kind_name,
            }
        )

    def _default_type(self) -> str:
        return "invalid_request_error" if self.status < 500 else "api_error"


@cache
def http_status(kind: ErrorKind.ValueType) -> int:
    """Returns the HTTP status that the contract gives an error kind."""
    options = ErrorKind.DESCRIPTOR.values_by_number[kind].GetOptions()
    return int(options.Extensions[annotations_pb2.http_status])


def of_exception(error: Exception) -> Failure | None:
    """Returns the failure that an exception means to the client; None if nobody foresaw it."""
    match error:
        case BridgeError():
            return Failure(error.kind, http_status(error.kind), error.message, param=error.param)
        case InvalidFieldError():
            kind = ErrorKind.ERROR_KIND_INVALID_REQUEST
            return Failure(kind, http_status(kind), str(error), param=error.path or None)
        case grpc.aio.AioRpcError():
            return of_rpc(error)
    return None


def internal() -> Failure:
    """Returns the failure of the gateway itself, which tells the client nothing but that."""
    kind = ErrorKind.ERROR_KIND_INTERNAL_ERROR
    return Failure(kind, http_status(kind), INTERNAL_MESSAGE)


def of_rpc(error: grpc.aio.AioRpcError) -> Failure:
    """Returns the failure that a failed RPC stands for."""
    trailing = dict(error.trailing_metadata() or ())
    attempts = int(str(trailing.get("x-twinspan-attempts", "0")))
    packed = trailing.get(_STATUS_DETAILS)
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    if isinstance(packed, bytes):
        for detail in status_pb2.Status.FromString(packed).details:
            for message in (info, retry, bad):
                detail.Unpack(message)
    kind = _KINDS.get(info.reason) or _KINDS_OF_CODES.get(error.code(), ErrorKind.ERROR_KIND_INTERNAL_ERROR)
    facts = info.metadata
    message = error.details() or ""
    if not info.reason:
        message = _transport_message(error.code())
    return Failure(
        kind,
        int(facts.get("http_status", 0)) or http_status(kind),
        message,
        type=facts.get("upstream_type"),
        param=facts.get("upstream_param") or (bad.field_violations[0].field if bad.field_violations else None),
        code=facts.get("upstream_code") or facts.get("code"),
        retry_after_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
        attempts=attempts,
        metadata=trailing,
    )


def _transport_message(code: grpc.StatusCode) -> str:
    """Returns the sentence for an RPC that failed on its way, with a message that is gRPC's own and not for clients."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return "The gateway's core cannot be reached. Try again in a moment."
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return "The request's deadline passed before there was an answer. Allow more time, or ask for less."
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "The request is larger than the gateway's core takes."
        case grpc.StatusCode.CANCELLED:
            return "The request was cancelled."
    return INTERNAL_MESSAGE
