"""The one place where an error of the core becomes a `google.rpc.Status`.

A status carries one `ErrorInfo` (reason: the kind; domain: `twinspan`), and `RetryInfo`, `BadRequest` or `QuotaFailure` where the
kind has something to say there. Source: https://google.aip.dev/193.
"""

from dataclasses import dataclass
from functools import cache

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from twinspan.v1 import annotations_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

DOMAIN = "twinspan"
STATUS_DETAILS = "grpc-status-details-bin"
"""The trailing metadata that carries a status whole."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_QUOTA_KINDS = frozenset({ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED, ErrorKind.ERROR_KIND_BUDGET_EXCEEDED})


@dataclass(frozen=True, slots=True)
class WireStatus:
    """How an error ends an RPC.

    Attributes:
        code: The status code.
        message: The status message.
        details: The value of `grpc-status-details-bin`.
    """

    code: grpc.StatusCode
    message: str
    details: bytes


@cache
def grpc_code(kind: ErrorKind.ValueType) -> grpc.StatusCode:
    """Returns the status code that the contract gives an error kind."""
    options = ErrorKind.DESCRIPTOR.values_by_number[kind].GetOptions()
    return _CODES[options.Extensions[annotations_pb2.grpc_code]]


def to_wire(error: GatewayError, request_id: str) -> WireStatus:
    """Returns the status of an error."""
    code = grpc_code(error.kind)
    info = error_details_pb2.ErrorInfo(
        reason=ErrorKind.Name(error.kind).removeprefix("ERROR_KIND_"), domain=DOMAIN, metadata=_facts(error, request_id)
    )
    details = [_packed(info)]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.param:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=error.message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.kind in _QUOTA_KINDS:
        exhausted = error_details_pb2.QuotaFailure.Violation(subject=error.provider or DOMAIN, description=error.message)
        details.append(_packed(error_details_pb2.QuotaFailure(violations=[exhausted])))
    status = status_pb2.Status(code=code.value[0], message=error.message, details=details)
    return WireStatus(code, error.message, status.SerializeToString())


def _facts(error: GatewayError, request_id: str) -> dict[str, str]:
    facts = {"request_id": request_id}
    if error.provider:
        facts["provider"] = error.provider
    if error.model:
        facts["model"] = error.model
    if error.code:
        facts["code"] = error.code
    if error.upstream:
        facts["http_status"] = str(error.upstream.status)
        for name in ("type", "param", "code"):
            value = getattr(error.upstream, name)
            if value is not None:
                facts[f"upstream_{name}"] = value
    return facts


def _packed(
    message: error_details_pb2.ErrorInfo
    | error_details_pb2.RetryInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.QuotaFailure,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
