"""The workloads: what is sent, over how many connections, and what the gateway may cost."""

import dataclasses

from bench.behaviour import EMBEDDING, UNARY, Behaviour

STREAM_CHUNKS = 100
MOST_IDLE_MB = 120.0
"""What the gateway may take before any request, without the embedded model."""

_STREAM = Behaviour(STREAM_CHUNKS, per_turn=10).model
_SLOW_STREAM = Behaviour(STREAM_CHUNKS, pause_milliseconds=50).model


@dataclasses.dataclass(frozen=True)
class Workload:
    """One kind of traffic over a number of connections."""

    name: str
    title: str
    model: str
    """The mock's model, which says how the answer comes."""
    connections: int
    kind: str = "small"
    """`small`: 200 bytes in; `agent`: 200 KB in; `embedding`: a text of 200 bytes to be embedded."""
    chunks: int = 0
    """Chunks of an answer; with any, they are the unit that is paid for."""
    grpc: bool = False
    """Whether the gateway's gRPC surface is asked, beside the echo."""
    arrival_seconds: float | None = None
    """For a crowd of streams that are open at once: over which time they arrive."""
    most: float | None = None
    """The highest CPU per unit that is aimed at, as a multiple of the floor's, or of the echo's for gRPC."""
    most_first_ms: float | None = None
    """For a crowd: the longest that 99 of 100 streams may wait for their first event."""
    most_stream_kb: float | None = None
    """For a crowd: the most memory that a stream may take."""

    @property
    def unit(self) -> str:
        """What the CPU is divided by."""
        return "chunk" if self.chunks else "request"


ALL = (
    Workload("W1", "small chat", UNARY, 1),
    Workload("W1", "small chat", UNARY, 32, most=1.8),
    Workload("W2", "small stream", _STREAM, 1, chunks=STREAM_CHUNKS, most=2.5),
    Workload("W2", "small stream", _STREAM, 32, chunks=STREAM_CHUNKS, most=2.5),
    Workload("W3", "200 KB agent request", UNARY, 1, kind="agent", most=2.5),
    Workload("W3", "200 KB agent request", UNARY, 16, kind="agent", most=3.0),
    Workload(
        "W4",
        "slow streams",
        _SLOW_STREAM,
        1000,
        chunks=STREAM_CHUNKS,
        arrival_seconds=2.0,
        most_first_ms=250,
        most_stream_kb=60,
    ),
    Workload("W6", "small embedding", EMBEDDING, 1, kind="embedding"),
    Workload("W6", "small embedding", EMBEDDING, 32, kind="embedding", most=1.8),
    Workload("W7", "small chat, gRPC", UNARY, 1, grpc=True, most=1.5),
    Workload("W7", "small chat, gRPC", UNARY, 32, grpc=True, most=1.5),
    Workload("W7", "small stream, gRPC", _STREAM, 1, chunks=STREAM_CHUNKS, grpc=True, most=1.5),
    Workload("W7", "small stream, gRPC", _STREAM, 32, chunks=STREAM_CHUNKS, grpc=True, most=1.5),
)
