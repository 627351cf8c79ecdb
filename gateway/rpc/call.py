"""One RPC under way, as a servicer sees it.

Servicers get an `RpcCall` where grpc.aio would give its context, so that they know who calls and by when, and nothing of transport.
`gateway.rpc.edge` makes it and ends it.
"""

import random
import re
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.message import Message

from gateway.access.keys import Principal
from gateway.access.policy import Policy
from gateway.telemetry.recorder import Call as CallCounts
from gateway.telemetry.tracing import ServerSpan

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class RpcCall:
    """One RPC, from its metadata to its status.

    Attributes:
        method: The full name with its slash, such as `/twinspan.v1.ChatService/Stream`.
        metadata: What the caller sent, by lower-case key; of several values the last one.
        request_id: The caller's `x-request-id` if it is sane, else a new one.
        trusted: Whether the caller is this process's own bridge, which has checked the JSON that it carries.
        principal: Who calls; None without a credential.
        span: The RPC's server span.
        counts: The RPC's own entry in the metrics.
        answer: What the answer's metadata shall say, besides the request id.
    """

    __slots__ = (
        "_announced",
        "_context",
        "_policy",
        "answer",
        "counts",
        "metadata",
        "method",
        "principal",
        "request_id",
        "span",
        "trusted",
    )

    def __init__(
        self,
        method: str,
        context: "grpc.aio.ServicerContext[Any, Any]",
        metadata: dict[str, Any],
        policy: Policy,
        counts: CallCounts,
        span: ServerSpan,
    ) -> None:
        self.method = method
        self.metadata = metadata
        given = metadata.get("x-request-id")
        self.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"req_{random.getrandbits(96):024x}"
        self.trusted = context.peer().startswith("inproc")
        self.principal: Principal | None = None
        self.span = span
        self.counts = counts
        self.answer: dict[str, str] = {}
        self._announced = False
        self._context = context
        self._policy = policy

    def override(self, name: str) -> str:
        """Returns what the caller wants in place of what would hold: `agent`, `provider` or `timeout-ms`; empty if nothing."""
        return str(self.metadata.get(f"x-twinspan-{name}", ""))

    def remaining_seconds(self) -> float | None:
        """Returns how long the caller will wait; None if it set no deadline."""
        return self._context.time_remaining()

    def require(self, model: str) -> None:
        """Makes sure that the caller may use a model or an agent.

        Raises:
            GatewayError: It may not.
        """
        self._policy.check(self.principal, self.method, agent_or_model=model, now=datetime.now(UTC))

    def require_route(self, route: str) -> None:
        """Makes sure that the caller may ask for a route, given as `METHOD /path`.

        Raises:
            GatewayError: It may not.
        """
        self._policy.check_route(self.principal, route)

    def allows(self, model: str) -> bool:
        """Tells whether the caller may use a model or an agent."""
        return self.principal is None or self.principal.allows(model)

    async def announce(self) -> None:
        """Sends what is known of the answer ahead of it. Only the first call counts."""
        if not self._announced:
            self._announced = True
            await self._context.send_initial_metadata(self.answer_metadata())

    def write(self, message: Message) -> Awaitable[None]:
        """Sends one message of a stream; waits while the caller reads too slowly."""
        return self._context.write(message)  # not awaited here, for that would cost every message another coroutine

    def answer_metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of the answer."""
        return (("x-request-id", self.request_id), *self.answer.items())
