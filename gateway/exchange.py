"""The exchange: one request to a model, from what is asked to the end of the answer. This is the file to read first.

    route      who may answer: an agent's targets, or a model's
    admission  whether the key, its team and the agent have anything left
    plan       in which order targets are tried, and which are left out
    pursuit    one target after the other, until one begins to answer
    answer     read by whoever asked, and settled when it is left

What is decided here holds for both surfaces and for everything that can be asked of a model: a chat, an embedding, a picture. What
is asked, how it is written for a provider and how the answer is read is the operation's (`gateway.operations`). Nothing here knows
transport. Above are the services; below are routing and limits, which decide, and `gateway.pursuit`, which does.
"""

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.asking import Caller, Operation, Shorter
from gateway.attempt import Attempt
from gateway.availability import through_account
from gateway.errors import GatewayError
from gateway.governance import Governance
from gateway.limits.limiter import Admission
from gateway.limits.scopes import scopes_of
from gateway.providers.sender import Sender
from gateway.pursuit import Made, Means, Pursuit
from gateway.routing.bill import Bill
from gateway.routing.catalogue import Catalogue, Route
from gateway.routing.plan import ASSUMED_OUTPUT, Plan
from gateway.shadows import Shadows
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import OperationSpan, Tracing

_A = TypeVar("_A", bound=Attempt)

_MOST_TIMEOUT_MS = 24 * 3600 * 1000


class Exchange:
    """Gets answers from models."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        sender: Sender,
        recorder: Recorder,
        tracing: Tracing,
        governance: Governance,
        *,
        clock: Callable[[], float] = time.monotonic,
        randomness: random.Random | None = None,
    ) -> None:
        """Makes an exchange.

        Args:
            catalogue: Returns the catalogue of the configuration that holds now; a request keeps the one that it began with.
            sender: Sends requests to providers.
            recorder: Counts.
            tracing: Makes spans.
            governance: Decides whether a request may be made, and where it goes.
            clock: Seconds that only rise.
            randomness: Where the jitter of retries comes from.
        """
        chance = randomness or random.Random()  # noqa: S311 (jitter, not a secret)
        self._catalogue = catalogue
        self._means = Means(sender, governance.state, recorder, tracing, governance.limiter, governance.availability, clock, chance)
        self._planner = governance.planner
        self._shadows = Shadows(self._means)

    async def close(self) -> None:
        """Ends what goes on behind answers that were given."""
        await self._shadows.close()

    async def open(self, operation: Operation[_A], caller: Caller, *, provider: str = "", account: str = "") -> "Answer[_A]":
        """Asks, and returns the answer once it has begun.

        `caller.answer` then says who answers. The answer must be entered, and left once it is done with, which settles it.

        Args:
            operation: What is asked.
            caller: Who asks.
            provider: The only provider that may answer, since it keeps what the request goes on from; empty for any.
            account: The only account of it that may, for the same reason; empty for any.

        Raises:
            GatewayError: There is no answer.
        """
        operation.check(trusted=caller.trusted)
        means, catalogue = self._means, self._catalogue()
        route = through_account(route_of(catalogue, operation, caller, provider), account)
        seconds = seconds_of(route, caller)
        admission = await means.limiter.admit(
            scopes_of(caller.principal, route.agent), operation.size, lambda: reserve_of(route, operation), seconds, caller.answer
        )
        span = operation.span(means.tracing, caller.span)
        pursuit: Pursuit[_A] | None = None
        try:
            if route.agent is not None:
                operation.instruct(route.agent)
            plan = self._planner.plan(route, catalogue.rules, operation, means.clock())
            pursuit = Pursuit(means, operation, caller, route, plan, span, seconds)
            try:
                made = await pursuit.run()
            except GatewayError as error:
                shorter = operation.shorter() if catalogue.rules.retries_too_long and pursuit.too_long else None
                if shorter is None:
                    raise
                operation = await self._summarised(shorter, pursuit, caller, route, plan, span, seconds, error)
                pursuit = Pursuit(means, operation, caller, route, plan, span, seconds, pursuit)
                made = await pursuit.run()
        except BaseException as error:
            bill = pursuit.bill if pursuit is not None else Bill()
            means.limiter.settle(admission, 0, bill.known_usd)
            span.end(error, attempts=int(caller.answer.get("x-twinspan-attempts", "0")), cost_usd=bill.usd)
            raise
        self._note_session(route, plan, made)
        if route.agent is not None and route.agent.shadow is not None:
            self._shadows.cast(operation, route.agent.shadow, caller, seconds)
        return Answer(made, pursuit, means, span, admission)

    async def _summarised(
        self,
        shorter: Shorter[_A],
        before: Pursuit[_A],
        caller: Caller,
        route: Route,
        plan: Plan,
        span: OperationSpan,
        seconds: float,
        error: GatewayError,
    ) -> Operation[_A]:
        """Has the older part of a conversation summarised by whoever is asked, and returns the request with the summary in it.

        Raises:
            GatewayError: There is no summary, so `error` stays what it was.
        """
        asking: Pursuit[Any] = Pursuit(self._means, shorter.question, caller, route, plan, span, seconds, before)
        try:
            made = await asking.run()
            try:
                summary = await shorter.read(made.attempt)
            except BaseException as fault:
                asking.end(made, fault)
                raise
            asking.end(made, None)
        except GatewayError:
            raise error from None
        finally:
            before.made = asking.made
        self._means.recorder.summarised()
        return shorter.with_summary(summary)

    def _note_session(self, route: Route, plan: Plan, made: Made[_A]) -> None:
        """Has a conversation stay where it was answered."""
        if plan.session is None or route.agent is None:
            return
        until = self._means.clock() + route.agent.session_ttl_seconds
        if self._means.state.sessions.pin(plan.session, made.attempt.target, until):
            self._means.recorder.session_moved("failure" if made.number > 1 else "unavailable")


class Answer(Generic[_A]):
    """The answer to one request, from its beginning on.

    It is a context manager, which gives the attempt that answers: leaving it, in whatever way, frees the connection to the provider
    and settles limits, spans and counts.
    """

    __slots__ = ("_admission", "_made", "_means", "_pursuit", "_span")

    def __init__(
        self, made: Made[_A], pursuit: Pursuit[_A], means: Means, span: OperationSpan, admission: Admission | None
    ) -> None:
        self._made = made
        self._pursuit = pursuit
        self._means = means
        self._span = span
        self._admission = admission
        span.first_token()

    def __enter__(self) -> _A:
        return self._made.attempt

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        made, means, pursuit = self._made, self._means, self._pursuit
        attempt, bill = made.attempt, pursuit.bill
        pursuit.end(made, error)
        usage = attempt.usage
        if usage is None:  # nobody knows what it has consumed, so what was claimed counts
            means.limiter.settle(self._admission, None, None)
        else:  # what has no price is not counted against a budget
            means.limiter.settle(self._admission, usage.input_tokens + usage.output_tokens, bill.known_usd)
        if isinstance(error, GatewayError):
            means.recorder.stream_interrupted(error.kind_name)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            means.recorder.stream_interrupted("cancelled")
        if self._span.recording:
            self._span.end(
                error,
                provider=attempt.target.provider.name,
                attempts=made.number,
                info=attempt.info,
                usage=usage,
                finish_reasons=attempt.finish_reasons,
                cost_usd=bill.usd,
            )


def route_of(catalogue: Catalogue, operation: Operation[Attempt], caller: Caller, provider: str = "") -> Route:
    """Returns where a request goes, as its caller may and wants.

    Args:
        catalogue: What there is.
        operation: What is asked.
        caller: Who asks, and what they want in place of what would hold.
        provider: The only provider that may answer; empty for any.

    Raises:
        GatewayError: It goes nowhere, or the caller may not ask there.
    """
    agent, wanted = caller.override("agent"), caller.override("provider")
    service = operation.service
    if agent:
        if agent not in catalogue.agents:
            raise _unusable("X-Twinspan-Agent", f"There is no agent '{agent[:256]}' here. GET /v1/models lists those there are.")
        route = catalogue.route(agent)
    else:
        route = catalogue.route(operation.model) if operation.model or service is None else catalogue.default_route(service)
    if wanted:
        route = _towards(catalogue, route, wanted)
    caller.require(route.name)
    return route.only(provider) if provider else route


def seconds_of(route: Route, caller: Caller) -> float:
    """Returns how long a request may take: what its caller wants and waits for, and its route's limit at most.

    Raises:
        GatewayError: What the caller wants is no time.
    """
    seconds = route.seconds
    remaining = caller.remaining_seconds()
    if remaining is not None:
        seconds = min(seconds, remaining)
    wanted = caller.override("timeout-ms")
    if wanted:
        if not (wanted.isascii() and wanted.isdecimal() and 0 < int(wanted[:12]) <= _MOST_TIMEOUT_MS):
            raise _unusable("X-Twinspan-Timeout-Ms", f"It must be a whole number of milliseconds, from 1 to {_MOST_TIMEOUT_MS}.")
        seconds = min(seconds, int(wanted) / 1000)
    return seconds


def reserve_of(route: Route, operation: Operation[Attempt]) -> float:
    """Returns what a request may cost, in US dollars, at the dearest of its targets; of those without a price nothing."""
    size = operation.size()
    output = size.output_tokens or ASSUMED_OUTPUT
    return max((target.estimated_usd(size.input_tokens, output) or 0.0 for target in route.targets), default=0.0)


def _towards(catalogue: Catalogue, route: Route, provider: str) -> Route:
    """Returns the part of a route that leads to a provider, or that provider's own model of the name."""
    if provider not in catalogue.providers:
        raise _unusable("X-Twinspan-Provider", f"There is no provider '{provider[:256]}' here.")
    if route.agent is None and route.name and all(target.provider.name != provider for target in route.targets):
        return catalogue.route(f"{provider}/{route.name}")
    targets = tuple(target for target in route.targets if target.provider.name == provider)
    if not targets:
        raise _unusable("X-Twinspan-Provider", f"'{route.name}' has no target at the provider '{provider}'.")
    return Route(route.name, route.agent, targets)


def _unusable(header: str, why: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"The header {header} cannot be used. {why}", param=header)
