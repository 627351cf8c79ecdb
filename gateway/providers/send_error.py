"""What can go wrong between sending a request to a provider and the end of its answer, in one table of errors.

Below is aiohttp, whose exceptions are read here and nowhere else. Above are `gateway.providers.sender` and
`gateway.providers.upstream`, which raise what this module makes. It does not read what a provider says of itself: an answer with an
error status is an answer.

Messages name the provider, the host and the phase, and never a URL's userinfo, path or query, a header, or text of the answer.
"""

import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientPayloadError,
    ServerDisconnectedError,
)
from aiohttp.http_exceptions import HttpProcessingError
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

_NO_REASON: Final = "no reason given"


class Phase(StrEnum):
    """How far a request had come."""

    CONNECT = "connect"
    """Resolving, connecting, TLS: the provider has seen nothing of the request."""
    FIRST_TOKEN = "first_token"  # noqa: S105 - a phase, no password
    """From the request being written to the first bytes of the answer's body. A PROVIDER_TIMEOUT here is a late first token."""
    BODY = "body"
    """From the first bytes of the body to its end. A PROVIDER_TIMEOUT here is a stall."""
    TOTAL = "total"
    """Any time after the connection stood, for a deadline that bounds the whole."""


@dataclass(slots=True)
class Upstream:
    """Who was asked, for the messages.

    Attributes:
        provider: The provider's name in the configuration.
        model: The model that was asked for.
        authority: Host and port, without userinfo.
    """

    provider: str
    model: str
    authority: str


class SendError(GatewayError):
    """A request that got no whole answer, with what a caller needs to know before it sends the request once more.

    Attributes:
        phase: How far the request had come.
        repeated: Whether the sender had already sent it twice, because the first connection turned out to be closed.
    """

    def __init__(self, kind: ErrorKind.ValueType, message: str, upstream: Upstream, phase: Phase) -> None:
        super().__init__(kind, message, provider=upstream.provider, model=upstream.model)
        self.phase = phase
        self.repeated = False

    @property
    def request_sent(self) -> bool:
        """Whether the provider may have acted on the request. If not, sending it again is safe whatever it asks for."""
        return self.phase is not Phase.CONNECT


def timed_out(upstream: Upstream, phase: Phase, seconds: float) -> SendError:
    """Returns the PROVIDER_TIMEOUT of a phase that lasted longer than its limit of `seconds`."""
    who = f"The provider '{upstream.provider}' ({upstream.authority})"
    match phase:
        case Phase.CONNECT:
            message = f"{who} could not be connected to within {seconds:g} s. Check its url and the network, or try again."
        case Phase.FIRST_TOKEN:
            message = f"{who} sent no first token within {seconds:g} s. Try again, or raise first_token_timeout_seconds."
        case Phase.BODY:
            message = f"{who} stalled in mid-answer for {seconds:g} s. Try again, or raise stream_idle_timeout_seconds."
        case Phase.TOTAL:
            message = f"{who} did not finish its answer within {seconds:g} s. Ask for less, or raise its timeout_seconds."
    return SendError(ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT, message, upstream, phase)


def closed(upstream: Upstream, phase: Phase) -> SendError:
    """Returns the CANCELLED of an answer that was closed here while somebody was still reading it."""
    return SendError(ErrorKind.ERROR_KIND_CANCELLED, "The provider's answer was closed before its end.", upstream, phase)


def misanswered(upstream: Upstream, phase: Phase, what: str) -> SendError:
    """Returns the PROVIDER_ERROR of an answer that arrived but is of no use; `what` says why, and what to do."""
    message = f"The provider '{upstream.provider}' ({upstream.authority}) {what}"
    return SendError(ErrorKind.ERROR_KIND_PROVIDER_ERROR, message, upstream, phase)


def broken(upstream: Upstream, phase: Phase, error: Exception) -> SendError:
    """Returns the NETWORK_ERROR that an exception of aiohttp or of the operating system stands for."""
    message = f"The provider '{upstream.provider}' ({upstream.authority}) {_describe(error)}"
    return SendError(ErrorKind.ERROR_KIND_NETWORK_ERROR, message, upstream, phase)


def _describe(error: Exception) -> str:
    match error:
        case ClientConnectorCertificateError(certificate_error=cause):
            why = getattr(cause, "verify_message", None) or _NO_REASON
            return f"showed a certificate that cannot be trusted: {why}. Check its url, or trust its authority."
        case ClientConnectorSSLError():
            return "could not agree on TLS. Check that its url should begin with https."
        case ClientConnectorDNSError():
            return "has a host name that cannot be resolved. Check its url and the name server."
        case ClientConnectorError(os_error=reason):
            return f"could not be connected to: {_reason(reason)}. Check its url, and that it runs."
        case ServerDisconnectedError():
            return "closed the connection without an answer. Try again."
        case HttpProcessingError():
            return "answered with something that is not HTTP. Check its url."
        case ClientPayloadError():
            return "broke off its answer before the end. Try again."
        case OSError():
            return f"lost the connection: {_reason(error)}. Try again."
        case _:
            return "failed to answer over HTTP. Try again."


def _reason(error: OSError) -> str:
    """The system's words for the error's number. An error's own text may name addresses, so it is not repeated."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return _NO_REASON
