"""What operators and their tools ask for: liveness, readiness and metrics."""

from collections.abc import Mapping
from typing import Any, Final

import grpc
import orjson
from aiohttp import web
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from bridge.call import Call
from bridge.telemetry.metrics import Exposition

_READINESS_TIMEOUT_SECONDS = 2.0
_DONE_WITHOUT: Final[Mapping[str, str]] = {
    "key_store": "The key store cannot be read. The keys that were read last hold; if none were, those of the configuration alone.",
    "state_store": "The state store does not answer. Limits and budgets are not held, or refuse all, as state.fail_open says.",
}
"""The parts that health tells of, without which requests are served, and what their absence means."""


class OperationsRoutes:
    """/healthz, /readyz and /metrics."""

    def __init__(self, health: HealthStub, metrics: Exposition, version: str) -> None:
        """Makes the routes.

        Args:
            health: Asks the core how it is.
            metrics: Shows what was counted.
            version: The gateway's version.
        """
        self._check: Any = health.Check
        self._metrics = metrics
        self._version = version

    async def healthz(self, call: Call) -> web.StreamResponse:
        """Tells that the process is alive. It waits for nothing."""
        if "application/json" in call.http.headers.get("Accept", ""):
            return call.json(orjson.dumps({"status": "ok", "version": self._version}))
        return web.Response(text="OK", headers=call.answer_headers("text/plain; charset=utf-8"))

    async def readyz(self, call: Call) -> web.StreamResponse:
        """Tells whether requests can be served: 200, or 503 with the reason. What fails and is done without is named with 200."""
        reason = await self._unreadiness()
        if reason is not None:
            return call.json(orjson.dumps({"status": "not ready", "reason": reason}), 503)
        degraded = {name: why for name, why in _DONE_WITHOUT.items() if await self._is_down(f"twinspan.{name}")}
        return call.json(orjson.dumps({"status": "ready", "degraded": degraded} if degraded else {"status": "ready"}))

    async def metrics(self, call: Call) -> web.StreamResponse:
        """Gives the metrics in Prometheus' text format, or OpenMetrics where that is asked for."""
        body, content_type = await self._metrics.rendered(call.http.headers.get("Accept", ""))
        return web.Response(body=body, headers=call.answer_headers(content_type))

    async def _unreadiness(self) -> str | None:
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(), timeout=_READINESS_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"The core cannot be reached ({error.code().name})."
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return None
        return "The core is draining."

    async def _is_down(self, part: str) -> bool:
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(service=part), timeout=_READINESS_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False  # a core that does not know the part does not need it
        return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)
