"""The words for failures that a test cannot cause without a name server, and the promise that they hold no secret."""

import errno
import ssl
from collections.abc import Callable

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientOSError,
)
from aiohttp.client_reqrep import ConnectionKey
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.providers.send_error import Phase, Upstream, broken

SECRET = "hunter2"
UPSTREAM = Upstream("acme", "m-1", "api.acme.example:443")
KEY = ConnectionKey(f"{SECRET}.example", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)

FAILURES: dict[str, tuple[Callable[[], Exception], str]] = {
    "name": (lambda: ClientConnectorDNSError(KEY, OSError(None, SECRET)), "has a host name that cannot be resolved."),
    "host down": (lambda: ClientConnectorError(KEY, OSError(errno.EHOSTUNREACH, SECRET)), "connected to: no route to host."),
    "no number": (lambda: ClientConnectorError(KEY, OSError(SECRET)), "connected to: no reason given."),
    "tls": (lambda: ClientConnectorSSLError(KEY, ssl.SSLError(1, SECRET)), "could not agree on TLS."),
    "host name": (
        lambda: ClientConnectorCertificateError(KEY, ssl.CertificateError(SECRET)),
        "showed a certificate that cannot be trusted: no reason given.",
    ),
    "pipe": (lambda: ClientOSError(errno.EPIPE, SECRET), "lost the connection: broken pipe."),
    "other": (lambda: ClientConnectionError(SECRET), "failed to answer over HTTP."),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_named_without_the_words_of_its_cause(case: str) -> None:
    cause, words = FAILURES[case]

    error = broken(UPSTREAM, Phase.CONNECT, cause())

    assert error.kind == ErrorKind.ERROR_KIND_NETWORK_ERROR
    assert error.message.startswith("The provider 'acme' (api.acme.example:443) ")
    assert words in error.message
    assert SECRET not in error.message
