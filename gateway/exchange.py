"""The exchange: one request to a model, from what is asked to the end of the answer. This is the file to read first.

    route      who may answer: an agent's targets, or a model's
    plan       in which order they are tried, those that cool down left out
    attempt    one target after the other, until one begins to answer
    answer     read by whoever asked, and settled when it is left

What is decided here holds for both surfaces and for everything that can be asked of a model: a chat, an embedding, a picture. What
is asked, how it is written for a provider and how the answer is read is the operation's (`gateway.operations`). Nothing here knows
transport. Above are the services; below are routing, which decides, and `gateway.attempt`, which does.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

from twinspan.v1.errors_pb2 import ErrorKind

from gateway import failures
from gateway.access.keys import Principal
from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.limits.limiter import Admission, Limiter
from gateway.providers.provider import Provider
from gateway.providers.send_error import Phase
from gateway.providers.sender import Sender, SendError
from gateway.routing.bill import Bill, decimal_text
from gateway.routing.catalogue import Agent, Catalogue, Route, RoutingState, Target
from gateway.routing.retry import backoff_seconds
from gateway.telemetry.recorder import Attempt as AttemptCounts
from gateway.telemetry.recorder import Call as CallCounts
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import AttemptSpan, OperationSpan, Span, Tracing

_TIMER_SLACK_SECONDS = 0.005
"""Timers of the event loop may fire a little before their time."""


_A = TypeVar("_A", bound=Attempt)
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

    def check(self, *, trusted: bool) -> None:
        """Raises a `GatewayError` unless this can be sent; `trusted` callers have looked at what they carry."""

    def span(self, tracing: Tracing, parent: Span) -> OperationSpan:
        """Starts the span under which the attempts stand."""

    def instruct(self, agent: Agent) -> None:
        """Adds what an agent says to what is asked."""

    def url(self, provider: Provider) -> str:
        """Returns where a provider is asked, for the attempt's span."""

    def tokens(self) -> int:
        """Returns how many tokens it may take, as far as can be told ahead. It is asked only where a limit needs it."""

    def attempt(self, target: Target, counts: AttemptCounts, span: AttemptSpan) -> _A_co:
        """Makes an attempt at a target."""


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

    def remaining_seconds(self) -> float | None:
        """Returns how long the caller will wait; None if it set no deadline."""


class Exchange:
    """Gets answers from models."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        sender: Sender,
        state: RoutingState,
        recorder: Recorder,
        tracing: Tracing,
        limiter: Limiter,
        *,
        clock: Callable[[], float] = time.monotonic,
        randomness: random.Random | None = None,
    ) -> None:
        """Makes an exchange.

        Args:
            catalogue: Returns the catalogue of the configuration that holds now; a request keeps the one that it began with.
            sender: Sends requests to providers.
            state: What routing learns.
            recorder: Counts.
            tracing: Makes spans.
            limiter: Lets requests in.
            clock: Seconds that only rise.
            randomness: Where the jitter of retries comes from.
        """
        self._catalogue = catalogue
        self._sender = sender
        self._state = state
        self._recorder = recorder
        self._tracing = tracing
        self._limiter = limiter
        self._clock = clock
        self._random = randomness or random.Random()  # noqa: S311 (jitter, not a secret)

    async def open(self, operation: Operation[_A], caller: Caller, *, provider: str = "") -> "Answer[_A]":
        """Asks, and returns the answer once it has begun.

        `caller.answer` then says who answers. The answer must be entered, and left once it is done with, which settles it.

        Args:
            operation: What is asked.
            caller: Who asks.
            provider: The only provider that may answer, since it keeps what the request goes on from; empty for any.

        Raises:
            GatewayError: There is no answer.
        """
        operation.check(trusted=caller.trusted)
        catalogue = self._catalogue()
        service = operation.service
        route = catalogue.route(operation.model) if operation.model or service is None else catalogue.default_route(service)
        caller.require(route.name)
        if provider:
            route = route.only(provider)
        admission = await self._limiter.admit(caller.principal, operation.tokens, route.seconds, caller.answer)
        span = operation.span(self._tracing, caller.span)
        bill = Bill()
        try:
            if route.agent is not None:
                operation.instruct(route.agent)
            return await self._answer(operation, caller, route, span, bill, admission)
        except BaseException as error:
            self._limiter.settle(admission, 0)
            span.end(error, attempts=int(caller.answer.get("x-twinspan-attempts", "0")), cost_usd=bill.usd)
            raise

    async def _answer(
        self, operation: Operation[_A], caller: Caller, route: Route, span: OperationSpan, bill: Bill, admission: Admission | None
    ) -> "Answer[_A]":
        """Makes attempts until one begins to answer."""
        clock = self._clock
        asked = caller.remaining_seconds()
        began = clock()
        limit = route.seconds
        deadline = began + (limit if asked is None else min(limit, asked))
        failed: list[Failed] = []
        for target, pause in self._tries(route, failed, clock()):
            if pause >= deadline - clock():
                continue  # the pause would outlast the request; another target may not need one
            if failed:
                self._recorder.retried()
                await asyncio.sleep(pause)
            number = len(failed) + 1
            caller.answer["x-twinspan-attempts"] = str(number)
            attempt = operation.attempt(
                target,
                self._recorder.attempt(*target.key, caller.counts),
                self._tracing.attempt_span(
                    span,
                    provider=target.provider.name,
                    model=target.model,
                    number=number,
                    url=operation.url(target.provider),
                    retry_reason=failed[-1].error.kind_name if failed else "",
                ),
            )
            left, own = deadline - clock(), target.provider.timeouts.total
            try:
                await attempt.open(self._sender, min(left, own))
            except GatewayError as error:
                self._charge(attempt, error, bill, caller)
                failed.append(Failed(target, error))
                is_over = _is_out_of_time(error, deadline - clock())
                cut_short = is_over and left < own - _TIMER_SLACK_SECONDS
                if not cut_short:
                    self._note_failure(route, target, error, clock())
                if cut_short or (is_over and len(route.targets) > 1):
                    raise out_of_time(failed, deadline - began) from error
                if is_over:
                    raise
                if operation.creates and attempt.may_have_acted(error):
                    raise
            except BaseException as error:
                self._charge(attempt, error, bill, caller)
                raise
            else:
                caller.answer["x-twinspan-provider"] = target.provider.name
                caller.answer["x-twinspan-model"] = header_text(target.model)
                caller.answer["x-twinspan-cache-status"] = "BYPASS"
                # What failed attempts cost must not be announced as if it were all, so a stream's cost waits for its end.
                known_ahead = attempt.is_whole or target.provider.free
                _tell_cost(caller, bill.with_one_more(attempt.cost_usd) if known_ahead else None)
                return Answer(attempt, span, self, route, number, bill, caller, admission)
        if len(route.targets) > 1 and not (failed and all(map(_is_refusal, failed))):
            self._recorder.targets_exhausted()
            raise exhausted(route, failed)
        raise failed[-1].error

    def _tries(self, route: Route, failed: "list[Failed]", now: float) -> Iterator[tuple[Target, float]]:
        """Gives the targets in the order of the plan, each with the pause before it; what has failed so far decides on retries."""
        for target in route.plan(self._state, now):
            yield target, 0.0
            for retry in range(1, route.max_retries + 1):
                error = failed[-1].error
                if not failures.may_pass(error, target.provider.retryable_status_codes):
                    break
                yield target, backoff_seconds(retry, error.retry_after, self._random)

    def _note_failure(self, route: Route, target: Target, error: GatewayError, now: float) -> None:
        if route.agent is None or not failures.blames_target(error):
            return
        cooldown = self._state.cooldown(target)
        if cooldown.failed(now, route.agent.cooldown, error.kind_name, error.retry_after):
            self._recorder.target_cooled_down()

    def _charge(self, attempt: Attempt, fault: BaseException | None, bill: Bill, caller: Caller) -> None:
        """Settles an attempt, and tells the caller what the request has cost by now, if that is known."""
        cost_usd = attempt.settle(fault)
        bill.add(cost_usd, consumed=fault is None or attempt.usage is not None)
        _tell_cost(caller, bill.usd)
        if attempt.empty:
            self._recorder.stream_empty()
        elif isinstance(fault, SendError) and fault.phase is Phase.BODY and fault.kind == ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT:
            self._recorder.stream_stalled()

    def settle(
        self,
        route: Route,
        attempt: Attempt,
        fault: BaseException | None,
        bill: Bill,
        caller: Caller,
        admission: Admission | None,
    ) -> None:
        """Settles an answer that had begun, and notes how it ended."""
        usage = attempt.usage
        self._limiter.settle(admission, None if usage is None else usage.input_tokens + usage.output_tokens)
        self._charge(attempt, fault, bill, caller)
        target = attempt.target
        if fault is None:
            if route.agent is not None:
                self._state.cooldown(target).succeeded()
            return
        if isinstance(fault, GatewayError):
            self._note_failure(route, target, fault, self._clock())
            self._recorder.stream_interrupted(fault.kind_name)
        elif isinstance(fault, asyncio.CancelledError | GeneratorExit):
            self._recorder.stream_interrupted("cancelled")


class Answer(Generic[_A]):
    """The answer to one request, from its beginning on.

    It is a context manager, which gives the attempt that answers: leaving it, in whatever way, frees the connection to the provider
    and settles spans and counts.
    """

    __slots__ = ("_admission", "_attempt", "_attempts", "_bill", "_caller", "_exchange", "_route", "_span")

    def __init__(
        self,
        attempt: _A,
        span: OperationSpan,
        exchange: Exchange,
        route: Route,
        attempts: int,
        bill: Bill,
        caller: Caller,
        admission: Admission | None,
    ) -> None:
        self._admission = admission
        self._attempt = attempt
        self._attempts = attempts
        self._bill = bill
        self._caller = caller
        self._span = span
        self._exchange = exchange
        self._route = route
        span.first_token()

    def __enter__(self) -> _A:
        return self._attempt

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        attempt = self._attempt
        self._exchange.settle(self._route, attempt, error, self._bill, self._caller, self._admission)
        if self._span.recording:
            self._span.end(
                error,
                provider=attempt.target.provider.name,
                attempts=self._attempts,
                info=attempt.info,
                usage=attempt.usage,
                finish_reasons=attempt.finish_reasons,
                cost_usd=self._bill.usd,
            )


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed.

    Attributes:
        target: Who was asked.
        error: Why it failed.
    """

    target: Target
    error: GatewayError


def _tell_cost(caller: Caller, usd: float | None) -> None:
    if usd is None:
        caller.answer.pop("x-twinspan-cost-usd", None)
    else:
        caller.answer["x-twinspan-cost-usd"] = decimal_text(usd)


def header_text(text: str) -> str:
    """Returns a text as headers can carry it: what is not printable ASCII is percent-encoded (RFC 3986 section 2.1)."""
    return text if text.isascii() and text.isprintable() else quote(text, safe=" /:@")


def _is_refusal(failed: Failed) -> bool:
    """Tells whether the gateway itself has refused a request, before the target was asked."""
    return failed.error.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST and failed.error.upstream is None


def _is_out_of_time(error: GatewayError, remaining_seconds: float) -> bool:
    return error.kind == ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT and remaining_seconds < _TIMER_SLACK_SECONDS


def out_of_time(failed: list[Failed], seconds: float) -> GatewayError:
    """Returns the error of a request whose time ended with an attempt under way, so that nobody else can be asked."""
    last = failed[-1]
    return GatewayError(
        ErrorKind.ERROR_KIND_DEADLINE_EXCEEDED,
        f"The request's {seconds:.3g} s were over at attempt {len(failed)}. {last.error.message}",
        provider=last.target.provider.name,
        model=last.target.model,
    )


def exhausted(route: Route, failed: list[Failed]) -> GatewayError:
    """Returns the error of a request whose targets have all failed; it names each attempt."""
    attempts = "; ".join(
        f"{attempt.target.provider.name}/{attempt.target.model}: {attempt.error.kind_name} ({attempt.error.message[:200]})"
        for attempt in failed
    )
    waits = [attempt.error.retry_after for attempt in failed if attempt.error.retry_after is not None]
    return GatewayError(
        ErrorKind.ERROR_KIND_TARGETS_EXHAUSTED,
        f"Every target of '{route.name}' failed. {attempts}",
        retry_after=min(waits) if waits else None,
    )
