"""Where the gateway listens, as its configuration says; without any configuration, on this machine alone. Pure.

Above are `gateway.app` and, through it, the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config.snapshot import Snapshot

LOOPBACK: Final = "127.0.0.1"
"""The address at which this machine alone is heard."""


@dataclass(frozen=True, slots=True)
class Listen:
    """How a bridge is to listen.

    Attributes:
        host: The address to bind; None for all interfaces.
        port: The port to bind.
        max_body_bytes: Most bytes of a request's body that is read whole.
        drain_seconds: How long requests under way may take once the bridge is to stop.
        keepalive_seconds: After how much silence a stream gets a comment.
        stream_default: Whether to stream where the client does not say.
        cors_origins: Origins whose pages may call.
        tls_cert: The certificate's file; None for plain HTTP.
        tls_key: The key's file.
        tls_client_ca: Which authorities' certificates clients must show; None if they need none.
    """

    host: str | None
    port: int
    max_body_bytes: int
    drain_seconds: float
    keepalive_seconds: float
    stream_default: bool
    cors_origins: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None


def of_bridge(snapshot: Snapshot) -> Listen:
    """Returns how a bridge is to listen."""
    server = snapshot.config.server
    host, _, port = server.listen_addr.rpartition(":")
    tls = server.tls
    return Listen(
        host=host.strip("[]") or (None if snapshot.sources else LOOPBACK),
        port=int(port),
        max_body_bytes=server.max_body_bytes,
        drain_seconds=server.drain_seconds,
        keepalive_seconds=server.keepalive_seconds,
        stream_default=server.stream_default,
        cors_origins=tuple(server.cors_origins),
        tls_cert=tls.cert if tls else None,
        tls_key=tls.key if tls else None,
        tls_client_ca=tls.client_ca if tls else None,
    )


def of_core(snapshot: Snapshot) -> str:
    """Returns where a core is to listen, as `host:port`; without a host all interfaces."""
    address = snapshot.config.server.grpc_addr
    return f"{LOOPBACK}{address}" if address.startswith(":") and not snapshot.sources else address


def of_metrics(snapshot: Snapshot) -> tuple[str, int] | None:
    """Returns where a core without a bridge is to serve its metrics, as host and port; None for nowhere."""
    host, _, port = snapshot.config.server.metrics_addr.rpartition(":")
    return (host.strip("[]") or "0.0.0.0", int(port)) if port else None
