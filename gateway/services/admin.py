"""AdminService: what operators look at."""

import asyncio
from collections.abc import Callable

from twinspan.v1 import admin_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.profiling.profiler import Profiler
from gateway.routing.state import RoutingState
from gateway.rpc.call import RpcCall
from gateway.telemetry import process
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.stats import stats

_PIECE_BYTES = 256 * 1024
_SHORTEST_SECONDS, _LONGEST_SECONDS, _USUAL_SECONDS = 0.1, 60.0, 1.0


class AdminService:
    """Serves `twinspan.v1.AdminService`."""

    def __init__(
        self, recorder: Recorder, state: RoutingState, clock: Callable[[], float], version: str, profiler: Profiler
    ) -> None:
        """Makes the service.

        Args:
            recorder: What was counted.
            state: What routing has learnt.
            clock: The clock of `state`, in seconds.
            version: The gateway's version.
            profiler: Makes profiles.
        """
        self._recorder = recorder
        self._state = state
        self._clock = clock
        self._version = version
        self._profiler = profiler
        self._stopping = asyncio.Event()

    async def GetStats(self, _request: admin_pb2.GetStatsRequest, _call: RpcCall) -> admin_pb2.GetStatsResponse:  # noqa: N802 (the RPC's name)
        """Returns counts since start."""
        return await self._stats()

    async def WatchStats(self, request: admin_pb2.WatchStatsRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Writes the counts every so often, until the caller leaves or the gateway stops."""
        seconds = request.interval_seconds if request.HasField("interval_seconds") else _USUAL_SECONDS
        if not _SHORTEST_SECONDS <= seconds <= _LONGEST_SECONDS:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                f"'interval_seconds' must be from {_SHORTEST_SECONDS:g} to {_LONGEST_SECONDS:g}.",
                param="interval_seconds",
            )
        await call.announce()
        while not self._stopping.is_set():
            await call.write(admin_pb2.WatchStatsResponse(stats=await self._stats()))
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def Profile(self, request: admin_pb2.ProfileRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Makes a profile, and writes it in pieces."""
        seconds = request.seconds if request.HasField("seconds") else None
        written = await self._profiler.make(request.kind, seconds, request.debug)
        content_type = written.content_type
        for start in range(0, max(1, len(written.data)), _PIECE_BYTES):
            piece = written.data[start : start + _PIECE_BYTES]
            await call.write(admin_pb2.ProfileResponse(content_type=content_type, content=piece))
            content_type = ""

    def stop(self) -> None:
        """Ends the streams of those who watch, which would hold up a stop else."""
        self._stopping.set()

    async def _stats(self) -> admin_pb2.GetStatsResponse:
        # In a thread, since with hundreds of targets it takes milliseconds to sort what they keep.
        response = await asyncio.to_thread(self._counts)
        response.process.asyncio_tasks = len(asyncio.all_tasks())
        now = self._clock()
        for (agent, provider, model), breaker in sorted(self._state.breakers.items()):
            response.breakers.add(
                agent=agent,
                provider=provider,
                model=model,
                failures=breaker.failures,
                remaining_seconds=breaker.wait_seconds(now),
                last_error=breaker.last_error,
                state=breaker.state.name.lower().replace("_", "-"),
            )
        return response

    def _counts(self) -> admin_pb2.GetStatsResponse:
        response = stats(self._recorder, self._version)
        process.fill(response.process)
        return response
