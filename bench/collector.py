"""An OTLP collector that counts the spans it is sent and forgets them, so that the gateway under test really exports."""

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from bench import child


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP over gRPC, traces only."""

    def __init__(self) -> None:
        """Makes a collector that has seen nothing."""
        self.spans = 0

    async def Export(  # noqa: N802 - gRPC's name
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: object,  # noqa: ARG002 - gRPC's signature
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Counts the spans."""
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


async def _main() -> None:
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated so
    port = server.add_insecure_port(f"{child.HOST}:0")
    await server.start()
    child.ready(grpc_port=port)
    await child.until_stopped()
    await server.stop(grace=None)
    # The last line of its output, where the runner finds it.
    child.ready(spans=collector.spans)


if __name__ == "__main__":
    child.run(_main())
