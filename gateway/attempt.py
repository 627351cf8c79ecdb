"""One attempt: one request to one target, from the first byte sent to the last byte read.

Above is the exchange, which decides whom to ask and when to stop. Below is the sender, which moves bytes. What is asked and how the
answer is read depends on the operation: `gateway.operations` has a subclass for each kind. An attempt never repeats itself.
"""

from abc import ABC, abstractmethod

from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.failures import outcome_of
from gateway.providers.openai import faults
from gateway.providers.sender import OutboundRequest, Sender, SendError, UpstreamResponse
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.tracing import AttemptSpan

_ERROR_BODY_LIMIT = 64 * 1024
_NOT_BEGUN = frozenset({429, 503})
"""The statuses with which a provider says that it has not begun."""


class Attempt(ABC):
    """Asks one target.

    Attributes:
        target: Who is asked.
        status: The HTTP status of the answer; 0 before there is one.
        is_whole: Whether the answer came as one, so that what it cost is known ahead of it.
        empty: Whether the provider ended its answer without saying anything.
    """

    __slots__ = ("_counts", "_done", "_span", "_upstream", "empty", "is_whole", "status", "target")

    def __init__(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> None:
        """Makes an attempt, which must be settled.

        Args:
            target: Who is asked.
            counts: The attempt's entry in the metrics; ended with the attempt.
            span: The attempt's span; ended with the attempt.
        """
        self.target = target
        self.status = 0
        self.is_whole = False
        self.empty = False
        self._counts = counts
        self._span = span
        self._upstream: UpstreamResponse | None = None
        self._done = False

    @abstractmethod
    async def open(self, sender: Sender, remaining_seconds: float) -> None:
        """Sends the request, and returns once the answer has begun in earnest.

        Args:
            sender: Sends it.
            remaining_seconds: How much time the whole attempt has.

        Raises:
            GatewayError: There is no answer, so another attempt may be made.
        """

    async def drain(self) -> None:  # noqa: B027 (most answers are read by then)
        """Reads what is left of the answer, and keeps nothing of it.

        Raises:
            GatewayError: The answer broke off.
        """

    @property
    def info(self) -> chat_pb2.ResponseInfo | None:
        """What identifies the answer; None if nothing does."""
        return None

    @property
    def usage(self) -> content_pb2.Usage | None:
        """What the request has consumed, as the provider last said; None if it did not say."""
        return None

    @property
    def finish_reasons(self) -> "list[content_pb2.FinishReason.ValueType]":
        """Why choices ended, in the order in which they did."""
        return []

    @property
    def cost_usd(self) -> float | None:
        """What it has cost, in US dollars; None if that is not known."""
        return self.target.cost_usd(self.usage)

    def settle(self, fault: BaseException | None) -> float | None:
        """Ends the attempt, and returns what it cost, in US dollars; None if that is not known. Only the first call counts.

        The connection is kept for reuse if the answer came to its end, and else closed at once.

        Args:
            fault: Why it ended, if it did not end well.
        """
        if self._upstream is not None:
            if self._done and fault is None:
                self._upstream.release()  # the end of the body often comes a little after the answer's own end
            self._upstream.close()
        if isinstance(fault, GatewayError):
            fault.message = self.target.provider.cleansed(fault.message)
            fault.model = fault.model or self.target.model
        usage = self.usage
        cost = self.target.cost_usd(usage)
        self._counts.end(outcome_of(fault), usage=usage, cost_usd=cost, trace_id=self._span.sampled_trace_id)
        self._span.end(fault, status=self.status)
        return cost

    def may_have_acted(self, error: GatewayError) -> bool:
        """Tells whether the provider may have done what it was asked for, although the attempt failed with `error`."""
        if self.status:
            return self.status not in _NOT_BEGUN
        return not isinstance(error, SendError) or error.request_sent

    async def _send(self, sender: Sender, request: OutboundRequest) -> UpstreamResponse:
        """Sends the request and returns the answer, whose status is a good one.

        Raises:
            GatewayError: There is no answer, or it is an error.
        """
        upstream = self._upstream = await sender.send(request)
        self.status = upstream.status
        if upstream.status >= 400:
            body = await upstream.read(_ERROR_BODY_LIMIT)
            raise faults.of_status(upstream.status, upstream.headers, body, self.target.provider.name)
        return upstream

    def _silent(self) -> GatewayError:
        """Notes that the answer was empty, and returns the error of that."""
        self.empty = True
        return self._broken("ended the answer without any output", ErrorKind.ERROR_KIND_PROVIDER_ERROR)

    def _broken(self, what: str, kind: ErrorKind.ValueType) -> GatewayError:
        provider = self.target.provider.name
        return GatewayError(
            kind, f"The provider '{provider}' {what}. Try again, or another model.", provider=provider, model=self.target.model
        )
