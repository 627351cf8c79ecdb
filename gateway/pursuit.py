"""The pursuit of an answer: attempts at the targets of a plan, one after the other, until one begins to answer.

Above is the exchange, which makes the plan and settles the answer; below are attempts. A pursuit belongs to one request. Every
attempt that it makes is settled, whatever comes: those that fail, those that lose against another, and the one that is under way
when the caller goes away.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from twinspan.v1.errors_pb2 import ErrorKind

from gateway import failures
from gateway.asking import Caller, Operation
from gateway.attempt import Attempt
from gateway.availability import Availability, Try, every_account_failed, is_account_to_blame
from gateway.errors import GatewayError
from gateway.limits.limiter import Admission, Limiter
from gateway.providers.send_error import Phase
from gateway.providers.sender import Sender, SendError
from gateway.routing.bill import Bill, decimal_text
from gateway.routing.catalogue import Route
from gateway.routing.plan import LeftOut, Plan, held_by_breaker, nothing_to_try
from gateway.routing.retry import backoff_seconds
from gateway.routing.state import RoutingState
from gateway.routing.target import Target
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import OperationSpan, Tracing

_TIMER_SLACK_SECONDS = 0.005
"""Timers of the event loop may fire a little before their time."""

_HEDGE_SHARE = 0.95
"""Another target is asked once the first is slower than in this share of its last answers."""

_A = TypeVar("_A", bound=Attempt)


@dataclass(frozen=True, slots=True)
class Means:
    """What pursuits work with, all of them the same.

    Attributes:
        sender: Sends requests to providers.
        state: What routing has learnt.
        recorder: Counts.
        tracing: Makes spans.
        limiter: Holds the limits of hosts.
        availability: Knows accounts and billing.
        clock: Seconds that only rise.
        randomness: Where jitter comes from.
    """

    sender: Sender
    state: RoutingState
    recorder: Recorder
    tracing: Tracing
    limiter: Limiter
    availability: Availability
    clock: Callable[[], float]
    randomness: random.Random


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed.

    Attributes:
        target: Who was asked.
        error: Why it failed.
    """

    target: Target
    error: GatewayError


@dataclass(slots=True)
class Made(Generic[_A]):
    """An attempt that has begun, with what it must be left with.

    Attributes:
        attempt: The attempt.
        entered: What the routing state gave.
        admission: What it has claimed of its host's limits; None if there are none.
        number: Which attempt of the request it is, from 1.
        began: When it began.
        cut_short: Whether the request's end leaves it less time than its provider has.
        ended: Whether it is settled.
    """

    attempt: _A
    entered: int
    admission: Admission | None
    number: int
    began: float
    cut_short: bool = False
    ended: bool = False


class Pursuit(Generic[_A]):
    """One request's attempts.

    Attributes:
        bill: What they have cost so far.
        made: How many there were.
        deadline: When the request's time is over, on the pursuit's clock.
    """

    def __init__(
        self,
        means: Means,
        operation: Operation[_A],
        caller: Caller,
        route: Route,
        plan: Plan,
        span: OperationSpan,
        seconds: float,
        after: "Pursuit[Any] | None" = None,
    ) -> None:
        """Takes what is asked, who asks, and who may answer.

        Args:
            means: What to work with.
            operation: What is asked.
            caller: Who asks.
            route: Where the request goes.
            plan: Which targets are tried, and in which order.
            span: The span under which attempts stand.
            seconds: How long all of it may take.
            after: The pursuit that came before it for the same request: it goes on with its bill, its time and its numbers.
        """
        self.bill: Bill = Bill() if after is None else after.bill
        self.made: int = 0 if after is None else after.made
        self._means = means
        self._operation = operation
        self._caller = caller
        self._route = route
        self._plan = plan
        self._span = span
        self._seconds = seconds
        self.deadline: float = means.clock() + seconds if after is None else after.deadline
        self._failed: list[Failed] = []
        self._skipped: list[LeftOut] = []

    @property
    def too_long(self) -> bool:
        """Whether it has failed since the request is too long for every target."""
        return bool(self._failed) and all(one.error.kind == ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED for one in self._failed)

    async def run(self) -> Made[_A]:
        """Makes attempts, and returns the one that begins to answer. Whoever gets it must settle it, by `end`.

        Raises:
            GatewayError: None does.
        """
        means = self._means
        if not self._plan.targets:
            means.recorder.targets_exhausted()
            means.availability.note_refusal(self._plan.left_out)
            raise nothing_to_try(self._route, self._plan)
        tries = means.availability.tries(self._tries(), self._failed)
        for target, pause, again in tries:
            if pause >= self.deadline - means.clock():
                continue  # the pause would outlast the request; another target may not need one
            if self._failed:
                means.recorder.retried()
            if pause:
                await asyncio.sleep(pause)
            if not again and not self._plan.last_resort and not means.state.available(target, means.clock()):
                # Its breaker has opened since the plan was made, or others have taken its probes.
                self._skipped.append(held_by_breaker(means.state, target, means.clock()))
                continue
            made = await self._begin(target)
            if made is None:
                continue
            delay = self._hedge_delay(target)
            opened = await (self._open(made) if delay is None else self._race(made, delay, tries))
            if isinstance(opened, Made):
                return opened
        raise self._error()

    def end(self, made: Made[_A], fault: BaseException | None) -> None:
        """Settles an attempt: frees its connection, and counts what it came to. Only the first call counts."""
        if made.ended:
            return
        made.ended = True
        attempt, means, route = made.attempt, self._means, self._route
        target = attempt.target
        cost_usd = attempt.settle(fault)
        means.availability.ended(target, fault, attempt.headers, cost_usd)
        self.bill.add(cost_usd, consumed=fault is None or attempt.usage is not None)
        _tell_cost(self._caller, self.bill.usd)
        if made.admission is not None:
            usage = attempt.usage
            means.limiter.settle(made.admission, None if usage is None else usage.input_tokens + usage.output_tokens)
        if fault is None:
            means.state.succeeded(target, made.entered, route.breaker)
        elif isinstance(fault, GatewayError) and self._blames_target(made, fault):
            opened = means.state.failed(
                target,
                made.entered,
                means.clock(),
                route.breaker,
                fault.kind_name,
                lambda level: failures.hold_of(fault, level, means.randomness.uniform),
            )
            if opened and target.agent:
                means.recorder.target_cooled_down()
        else:
            means.state.abandoned(target, made.entered)
        if attempt.empty:
            means.recorder.stream_empty()
        elif isinstance(fault, SendError) and fault.phase is Phase.BODY and fault.kind == ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT:
            means.recorder.stream_stalled()

    def _tries(self) -> Iterator[Try]:
        """Gives the targets in the order of the plan, each with the pause before it and whether it was tried before."""
        for target in self._plan.targets:
            before = len(self._failed)
            yield Try(target, 0.0, again=False)
            for retry in range(1, self._route.max_retries + 1):
                if len(self._failed) == before:
                    break
                error = self._failed[-1].error
                if not failures.may_pass(error, target.provider.retryable_status_codes):
                    break
                yield Try(target, backoff_seconds(retry, error.retry_after, self._means.randomness), again=True)

    async def _begin(self, target: Target) -> Made[_A] | None:
        """Begins an attempt; returns None if its host's limits leave nothing for it."""
        means, caller, operation = self._means, self._caller, self._operation
        admission: Admission | None = None
        if target.provider.limited:
            admission, refusal = await means.limiter.admit_host(target.provider, operation.size, self._seconds)
            if refusal is not None:
                self._skipped.append(LeftOut(target, "limit", refusal.message, refusal.retry_after or 0.0))
                return None
        self.made += 1
        caller.answer["x-twinspan-attempts"] = str(self.made)
        entered = means.state.enter(target)
        attempt = operation.attempt(
            target,
            means.recorder.attempt(*target.key, caller.counts),
            means.tracing.attempt_span(
                self._span,
                provider=target.provider.name,
                model=target.model,
                number=self.made,
                url=operation.url(target.provider),
                retry_reason=self._failed[-1].error.kind_name if self._failed else "",
            ),
        )
        return Made(attempt, entered, admission, self.made, means.clock())

    async def _open(self, made: Made[_A]) -> Made[_A] | GatewayError:
        """Returns the attempt once it answers, or why it does not, if another may be made.

        Raises:
            GatewayError: No other may.
        """
        means, attempt = self._means, made.attempt
        left, own = self.deadline - means.clock(), attempt.target.provider.timeouts.total
        made.cut_short = left < own - _TIMER_SLACK_SECONDS
        try:
            await attempt.open(means.sender, min(left, own))
        except GatewayError as error:
            self._failed.append(Failed(attempt.target, error))
            self.end(made, error)
            if self._is_out_of_time(error):
                if len(self._route.targets) == 1 and not made.cut_short:
                    raise
                raise out_of_time(self._failed, self._seconds) from error
            if self._operation.creates and attempt.may_have_acted(error):
                raise
            return error
        except BaseException as error:
            self.end(made, error)
            raise
        if len(self._route.targets) > 1:
            means.state.began(attempt.target, means.clock() - made.began)
        self._announce(made)
        return made

    def _announce(self, made: Made[_A]) -> None:
        """Tells the caller who answers."""
        answer, target = self._caller.answer, made.attempt.target
        answer["x-twinspan-provider"] = target.provider.name
        answer["x-twinspan-model"] = header_text(target.model)
        answer["x-twinspan-cache-status"] = "BYPASS"
        # What failed attempts cost must not be announced as if it were all, so a stream's cost waits for its end.
        known_ahead = made.attempt.is_whole or target.costs_nothing
        _tell_cost(self._caller, self.bill.with_one_more(made.attempt.cost_usd) if known_ahead else None)

    def _hedge_delay(self, target: Target) -> float | None:
        """Returns after how long another target is asked too; None if none is to be."""
        agent = self._route.agent
        if agent is None or not agent.hedges or not self._operation.repeatable:
            return None
        latency = self._means.state.latencies.get(target.key)
        return latency.quantile(_HEDGE_SHARE) if latency is not None else None

    async def _race(self, first: Made[_A], delay: float, tries: Iterator[Try]) -> Made[_A] | GatewayError:
        """Opens an attempt, and beside it one at the next target if the first takes long; who begins first, answers.

        Raises:
            GatewayError: No attempt may be made after these.
        """
        runners, tasks = [first], [asyncio.create_task(self._open(first))]
        opened: Made[_A] | GatewayError | None = None
        try:
            await asyncio.wait(tasks, timeout=delay)
            second = await self._begin_next(first, tries) if not tasks[0].done() else None
            if second is not None:
                self._means.recorder.hedged()
                runners.append(second)
                tasks.append(asyncio.create_task(self._open(second)))
            running = set(tasks)
            while running and not isinstance(opened, Made):
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:  # in their order, so that of two at once the first one wins
                    if task in done and not isinstance(opened, Made):
                        opened = task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for loser in runners:  # its connection is closed at once
                if loser is not opened:
                    self.end(loser, asyncio.CancelledError())
        assert opened is not None  # noqa: S101 (there was at least one task)
        if isinstance(opened, Made):
            self._announce(opened)
        return opened

    async def _begin_next(self, first: Made[_A], tries: Iterator[Try]) -> Made[_A] | None:
        for target, _, _ in tries:
            if target.key != first.attempt.target.key and self._means.state.available(target, self._means.clock()):
                return await self._begin(target)
        return None

    def _is_out_of_time(self, error: GatewayError) -> bool:
        """Tells whether the request's time is over, and an attempt failed by that."""
        remaining = self.deadline - self._means.clock()
        return error.kind == ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT and remaining < _TIMER_SLACK_SECONDS

    def _blames_target(self, made: Made[_A], error: GatewayError) -> bool:
        """Tells whether it is the target that is at fault: not the request, its time, or one of several accounts."""
        if not failures.blames_target(error) or is_account_to_blame(made.attempt.target, error):
            return False
        return not (made.cut_short and self._is_out_of_time(error))

    def _error(self) -> GatewayError:
        failed = self._failed
        if len(self._route.targets) > 1 and not (failed and all(map(_is_refusal, failed))):
            self._means.recorder.targets_exhausted()
            return exhausted(self._route, failed, [*self._skipped, *self._plan.left_out])
        if failed:
            return every_account_failed(failed)
        if not self._skipped:
            return self._means.availability.refusal(self._plan.targets[0])
        skipped = self._skipped[0]
        return GatewayError(
            ErrorKind.ERROR_KIND_RATE_LIMITED,
            skipped.message,
            provider=skipped.target.provider.name,
            model=skipped.target.model,
            retry_after=skipped.wait_seconds or None,
        )


def header_text(text: str) -> str:
    """Returns a text as headers can carry it: what is not printable ASCII is percent-encoded (RFC 3986 section 2.1)."""
    return text if text.isascii() and text.isprintable() else quote(text, safe=" /:@")


def _tell_cost(caller: Caller, usd: float | None) -> None:
    if usd is None:
        caller.answer.pop("x-twinspan-cost-usd", None)
    else:
        caller.answer["x-twinspan-cost-usd"] = decimal_text(usd)


def _is_refusal(failed: Failed) -> bool:
    """Tells whether the gateway itself has refused a request, before the target was asked."""
    return failed.error.kind == ErrorKind.ERROR_KIND_INVALID_REQUEST and failed.error.upstream is None


def out_of_time(failed: list[Failed], seconds: float) -> GatewayError:
    """Returns the error of a request whose time ended with an attempt under way, so that nobody else can be asked."""
    last = failed[-1]
    return GatewayError(
        ErrorKind.ERROR_KIND_DEADLINE_EXCEEDED,
        f"The request's {seconds:.3g} s were over at attempt {len(failed)}. {last.error.message}",
        provider=last.target.provider.name,
        model=last.target.model,
    )


def exhausted(route: Route, failed: list[Failed], skipped: list[LeftOut]) -> GatewayError:
    """Returns the error of a request whose targets have all failed; it names each attempt, and what was not tried."""
    parts = [
        f"{attempt.target.provider.name}/{attempt.target.model}: {attempt.error.kind_name} ({attempt.error.message[:200]})"
        for attempt in failed
    ]
    parts += [f"{one.target.provider.name}/{one.target.model}: not tried. {one.message}" for one in skipped]
    waits = [attempt.error.retry_after for attempt in failed if attempt.error.retry_after is not None]
    waits += [one.wait_seconds for one in skipped if one.wait_seconds]
    return GatewayError(
        ErrorKind.ERROR_KIND_TARGETS_EXHAUSTED,
        f"Every target of '{route.name}' failed. {'; '.join(parts)}",
        retry_after=min(waits) if waits else None,
    )
