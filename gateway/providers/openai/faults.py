"""Reads the errors of OpenAI-compatible providers.

The reader is tolerant: providers answer with OpenAI's envelope, with one of their own, with numbers where strings belong, with HTML
or with nothing, and each of these becomes a clear error of the gateway.
"""

import json
from collections.abc import Mapping
from typing import Any

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError, UpstreamFacts

_KINDS: Mapping[int, ErrorKind.ValueType] = {
    400: ErrorKind.ERROR_KIND_INVALID_REQUEST,
    401: ErrorKind.ERROR_KIND_AUTH_FAILED,
    402: ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
    403: ErrorKind.ERROR_KIND_PERMISSION_DENIED,
    404: ErrorKind.ERROR_KIND_NOT_FOUND,
    408: ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT,
    409: ErrorKind.ERROR_KIND_CONFLICT,
    413: ErrorKind.ERROR_KIND_PAYLOAD_TOO_LARGE,
    422: ErrorKind.ERROR_KIND_INVALID_REQUEST,
    429: ErrorKind.ERROR_KIND_RATE_LIMITED,
    504: ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT,
    529: ErrorKind.ERROR_KIND_RATE_LIMITED,
}
_CODES: Mapping[str, ErrorKind.ValueType] = {
    "context_length_exceeded": ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED,
    "insufficient_quota": ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
    "model_not_found": ErrorKind.ERROR_KIND_MODEL_NOT_FOUND,
    "rate_limit_exceeded": ErrorKind.ERROR_KIND_RATE_LIMITED,
}
_TYPES: Mapping[str, ErrorKind.ValueType] = {
    "exceed_context_size_error": ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED,  # llama.cpp's servers
    "insufficient_quota": ErrorKind.ERROR_KIND_QUOTA_EXHAUSTED,
}
_MESSAGE_LIMIT = 2000
_FACT_LIMIT = 256


def of_status(status: int, headers: Mapping[str, str], body: bytes, provider: str) -> GatewayError:
    """Returns the error that an answer with a status of 400 or more stands for.

    A status below 500 is the client's to see as it is. One of 500 and more is the provider's own trouble, which the client sees as
    a 502 or a 504.
    """
    message, facts = _envelope(body, status)
    kind = _CODES.get(facts.code or "") or _TYPES.get(facts.type or "") or _KINDS.get(status)
    if kind is None:
        kind = ErrorKind.ERROR_KIND_INVALID_REQUEST if status < 500 else ErrorKind.ERROR_KIND_PROVIDER_ERROR
    if message is None:
        message = f"The provider '{provider}' answered with status {status} and no message. Try again, or another model."
    return GatewayError(
        kind,
        message,
        param=facts.param,
        provider=provider,
        retry_after=retry_after(headers),
        upstream=facts if status < 500 else None,
        upstream_status=status,
    )


def in_band(error: bytes, provider: str) -> GatewayError:
    """Returns the error that a provider sent where a chunk was expected; `error` is its field `error`, as JSON text."""
    message, facts = _facts(_json(error), 0)
    code = facts.code or ""
    status = int(code) if code.isascii() and code.isdecimal() and len(code) == 3 else 0
    kind = _CODES.get(code) or _TYPES.get(facts.type or "") or _KINDS.get(status) or ErrorKind.ERROR_KIND_PROVIDER_ERROR
    message = message or f"The provider '{provider}' ended the stream with an error."
    return GatewayError(kind, message, provider=provider, upstream_status=status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that a provider asks to wait, from `retry-after-ms` or `retry-after` (RFC 9110 section 10.2.3).

    A date is not read: no provider of this kind sends one.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= seconds < 86_400 * 7:
            return seconds
    return None


def _envelope(body: bytes, status: int) -> tuple[str | None, UpstreamFacts]:
    fields = _json(body)
    if isinstance(fields, list) and fields:  # one vendor wraps its envelope in an array
        fields = fields[0]
    if not isinstance(fields, dict):
        return None, UpstreamFacts(status)
    return _facts(fields.get("error") or fields, status)


def _json(text: bytes) -> Any:
    """Returns what a JSON text says; None if it is none. The standard library's reader forgives more than others."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _facts(error: Any, status: int) -> tuple[str | None, UpstreamFacts]:
    if isinstance(error, str):
        return _text(error, _MESSAGE_LIMIT), UpstreamFacts(status)
    if not isinstance(error, dict):
        return None, UpstreamFacts(status)
    message = _text(error.get("message"), _MESSAGE_LIMIT) or _text(error.get("detail"), _MESSAGE_LIMIT)
    kind, param, code = (_text(error.get(name), _FACT_LIMIT) for name in ("type", "param", "code"))
    return message, UpstreamFacts(status, kind, param, code)


def _text(value: Any, limit: int) -> str | None:
    """Returns a string or number as text, cut to `limit` characters; providers send numeric codes where OpenAI sends strings."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return None
    return value[:limit].encode("utf-8", "replace").decode()  # half a surrogate pair is text to JSON and to nobody else
