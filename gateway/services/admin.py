"""AdminService: what operators look at."""

from collections.abc import Callable

from twinspan.v1 import admin_pb2

from gateway.routing.catalogue import RoutingState
from gateway.rpc.call import RpcCall
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.stats import stats


class AdminService:
    """Serves `twinspan.v1.AdminService`."""

    def __init__(self, recorder: Recorder, state: RoutingState, clock: Callable[[], float], version: str) -> None:
        """Makes the service.

        Args:
            recorder: What was counted.
            state: What routing has learnt.
            clock: The clock of `state`, in seconds.
            version: The gateway's version.
        """
        self._recorder = recorder
        self._state = state
        self._clock = clock
        self._version = version

    async def GetStats(self, _request: admin_pb2.GetStatsRequest, _call: RpcCall) -> admin_pb2.GetStatsResponse:  # noqa: N802 (the RPC's name)
        """Returns counts since start."""
        response = stats(self._recorder, self._version)
        now = self._clock()
        for (agent, provider, model), cooldown in sorted(self._state.cooldowns.items()):
            if cooldown.failures:
                response.cooldowns.add(
                    agent=agent,
                    provider=provider,
                    model=model,
                    failures=cooldown.failures,
                    remaining_seconds=max(0.0, cooldown.until - now),
                    last_error=cooldown.last_error,
                )
        return response
