"""AdminService: what operators look at."""

import asyncio
from collections.abc import Awaitable, Callable

from twinspan.v1 import admin_pb2, explain_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.explanation import Explainer
from gateway.operations.chat import Chat, Form
from gateway.profiling.profiler import Profiler
from gateway.rpc.call import RpcCall
from gateway.siblings import Gathered, Reloading, Siblings
from gateway.telemetry import process
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.stats import stats
from gateway.telemetry.totals import total

_PIECE_BYTES = 256 * 1024
_SHORTEST_SECONDS, _LONGEST_SECONDS, _USUAL_SECONDS = 0.1, 60.0, 1.0


class AdminService:
    """Serves `twinspan.v1.AdminService`."""

    def __init__(
        self,
        recorder: Recorder,
        version: str,
        profiler: Profiler,
        explainer: Explainer,
        reload: Callable[[], Awaitable[Reloading]],
        siblings: Siblings | None = None,
    ) -> None:
        """Makes the service.

        Args:
            recorder: What was counted.
            version: The gateway's version.
            profiler: Makes profiles.
            explainer: Explains requests.
            reload: Reads the configuration again, in all processes that serve.
            siblings: The processes that serve; None for this one alone.
        """
        self._recorder = recorder
        self._version = version
        self._profiler = profiler
        self._explainer = explainer
        self._reload = reload
        self._siblings = siblings
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

    async def Explain(self, request: explain_pb2.ExplainRequest, call: RpcCall) -> explain_pb2.ExplainResponse:  # noqa: N802 (the RPC's name)
        """Tells what would come of a chat."""
        return await self._explainer.explain(Chat(request.chat, Form.WHOLE), call)

    async def Profile(self, request: admin_pb2.ProfileRequest, call: RpcCall) -> None:  # noqa: N802 (the RPC's name)
        """Makes a profile, and writes it in pieces."""
        seconds = request.seconds if request.HasField("seconds") else None
        written = await self._profiler.make(request.kind, seconds, request.debug)
        content_type = written.content_type
        for start in range(0, max(1, len(written.data)), _PIECE_BYTES):
            piece = written.data[start : start + _PIECE_BYTES]
            await call.write(admin_pb2.ProfileResponse(content_type=content_type, content=piece))
            content_type = ""

    async def ReloadConfig(  # noqa: N802 (the RPC's name)
        self, _request: admin_pb2.ReloadConfigRequest, _call: RpcCall
    ) -> admin_pb2.ReloadConfigResponse:
        """Reads the configuration again."""
        done = await self._reload()
        if done.mistakes:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST, f"The configuration was not reloaded, the old one goes on. {done.mistakes}"
            )
        return admin_pb2.ReloadConfigResponse(sources=done.sources, warnings=done.warnings, processes=done.processes)

    def stop(self) -> None:
        """Ends the streams of those who watch, which would hold up a stop else."""
        self._stopping.set()

    async def _stats(self) -> admin_pb2.GetStatsResponse:
        # In a thread, since with hundreds of targets it takes milliseconds to sort what they keep.
        if self._siblings is not None:
            return await asyncio.to_thread(self._counts_of_all, await self._siblings.gather())
        response = await asyncio.to_thread(self._counts)
        response.process.asyncio_tasks = len(asyncio.all_tasks())
        return response

    def _counts(self) -> admin_pb2.GetStatsResponse:
        response = stats(self._recorder, self._version)
        process.fill(response.process)
        return response

    def _counts_of_all(self, gathered: Gathered) -> admin_pb2.GetStatsResponse:
        sums = total(gathered.reports, gathered.standing.started_at)
        response = stats(sums.recorder, self._version)
        process.fill(response.process, sums.process)
        response.process.asyncio_tasks = int(sums.process.get("asyncio_tasks", 0))
        return response
