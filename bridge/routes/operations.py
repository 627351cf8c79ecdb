"""What operators and their tools ask for: liveness, readiness and metrics."""

from typing import Any

import grpc
import orjson
from aiohttp import web
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from bridge.call import Call
from bridge.telemetry.metrics import Exposition

_READINESS_TIMEOUT_SECONDS = 2.0


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
        """Tells whether requests can be served: 200, or 503 with the reason."""
        reason = await self._unreadiness()
        body = {"status": "ready"} if reason is None else {"status": "not ready", "reason": reason}
        return call.json(orjson.dumps(body), 200 if reason is None else 503)

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
