"""What is asked of the core, and who asks: the two things that every request brings.

Services bring callers and operations bring what is asked (`gateway.operations`); the exchange and its pursuits know no more of
either than this.
"""

from typing import Any, Protocol, TypeVar

from gateway.access.keys import Principal
from gateway.attempt import Attempt
from gateway.limits.estimate import Size
from gateway.providers.provider import Provider
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.recorder import Call as CallCounts
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_A_co = TypeVar("_A_co", bound=Attempt, covariant=True)


class Operation(Protocol[_A_co]):
    """What is asked of a model, and how."""

    @property
    def model(self) -> str:
        """The model or agent that the client names; empty if it names none."""

    @property
    def service(self) -> str | None:
        """The kind of service whose default provider answers if no model is named; None if one must be."""

    @property
    def creates(self) -> bool:
        """Whether asking twice makes two things, so that it is not repeated once a provider may have acted on it."""

    @property
    def repeatable(self) -> bool:
        """Whether a second attempt may be made beside the first, without either knowing of the other."""

    def check(self, *, trusted: bool) -> None:
        """Raises a `GatewayError` unless this can be sent; `trusted` callers have looked at what they carry."""

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """Starts the span under which the attempts stand."""

    def instruct(self, agent: Agent) -> None:
        """Adds what an agent says to what is asked."""

    def url(self, provider: Provider) -> str:
        """Returns where a provider is asked, for the attempt's span."""

    def size(self) -> Size:
        """Returns how many tokens it may take, as far as can be told ahead. It is asked only where something depends on it."""

    def session(self) -> bytes | None:
        """Returns what the conversation is known by: a digest of its beginning; None if it is none."""

    def shorter(self) -> "Shorter[_A_co] | None":
        """Returns how it can be asked again if it was too long; None if it cannot."""

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> _A_co:
        """Makes an attempt at a target."""


class Shorter(Protocol[_A_co]):
    """A request that was too long, and can be asked again once its older part is summarised."""

    @property
    def question(self) -> "Operation[Any]":
        """What asks for the summary."""

    async def read(self, attempt: Any) -> str:
        """Returns the summary that the attempt at the question has answered.

        Raises:
            GatewayError: It broke off.
        """

    def with_summary(self, summary: str) -> "Operation[_A_co]":
        """Returns the request with a summary in place of what it is of."""


class Caller(Protocol):
    """Who asks, as far as the exchange must know.

    Attributes:
        trusted: Whether JSON texts in the request are known to be JSON.
        principal: Who that is; None for nobody in particular.
        counts: The caller's entry in the metrics.
        answer: What the caller learns of the answer ahead of it, by metadata key.
    """

    trusted: bool
    principal: Principal | None
    counts: CallCounts
    answer: dict[str, str]

    @property
    def span(self) -> Span:
        """The span under which the request's own spans stand."""

    def require(self, model: str) -> None:
        """Raises a `GatewayError` unless the caller may use the model or agent of this name."""

    def override(self, name: str) -> str:
        """Returns what the caller wants in place of what would hold: `agent`, `provider` or `timeout-ms`; empty if nothing."""

    def remaining_seconds(self) -> float | None:
        """Returns how long the caller will wait; None if it set no deadline."""
