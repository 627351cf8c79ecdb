"""The exchange: one chat, from the request to the last event. This is the file to read first.

    route      who may answer: an agent's targets, or a model's
    plan       in which order they are tried, those that cool down left out
    attempt    one target after the other, until one gives its first events
    answer     its events, as they come

What is decided here holds for both surfaces, and for whole answers as for streams: a whole one is the stream, folded. Nothing here
knows transport. Above are the services; below are routing, which decides, and `gateway.attempt`, which does.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from twinspan.v1 import chat_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway import failures
from gateway.attempt import Attempt, Form
from gateway.chat_request import check, instruct
from gateway.errors import GatewayError
from gateway.fold import Fold
from gateway.providers.sender import Sender
from gateway.routing.catalogue import Catalogue, Route, RoutingState, Target
from gateway.routing.retry import backoff_seconds
from gateway.telemetry.recorder import Call as CallCounts
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.tracing import ChatSpan, Span, Tracing

_TIMER_SLACK_SECONDS = 0.005
"""Timers of the event loop may fire a little before their time."""


class Caller(Protocol):
    """Who asks for a chat, as far as the exchange must know.

    Attributes:
        trusted: Whether JSON texts in the request are known to be JSON.
        counts: The caller's entry in the metrics.
        answer: What the caller learns of the answer ahead of it, by metadata key.
    """

    trusted: bool
    counts: CallCounts
    answer: dict[str, str]

    @property
    def span(self) -> Span:
        """The span under which the chat's own spans stand."""

    def require(self, model: str) -> None:
        """Raises a `GatewayError` unless the caller may use the model or agent of this name."""

    def remaining_seconds(self) -> float | None:
        """Returns how long the caller will wait; None if it set no deadline."""


class Exchange:
    """Answers chats."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        sender: Sender,
        state: RoutingState,
        recorder: Recorder,
        tracing: Tracing,
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
            clock: Seconds that only rise.
            randomness: Where the jitter of retries comes from.
        """
        self._catalogue = catalogue
        self._sender = sender
        self._state = state
        self._recorder = recorder
        self._tracing = tracing
        self._clock = clock
        self._random = randomness or random.Random()  # noqa: S311 (jitter, not a secret)

    async def complete(self, chat: chat_pb2.ChatRequest, caller: Caller, *, as_text: bool = False) -> chat_pb2.CompleteResponse:
        """Answers a chat in one message; with `as_text` in the provider's own text, if that is in OpenAI's form.

        Raises:
            GatewayError: There is no whole answer.
        """
        with await self.open(chat, caller, form=Form.TEXT if as_text else Form.WHOLE) as answer:
            if answer.text is not None:
                return answer.text
            fold = Fold()
            fold.add(answer.first)
            while (response := await answer.next()) is not None:
                fold.add(response)
        return fold.result()

    async def open(self, chat: chat_pb2.ChatRequest, caller: Caller, *, form: Form = Form.STREAM) -> "Answer":
        """Begins to answer a chat, and returns the answer once its first events are there.

        `caller.answer` then says who answers. The answer must be entered, and left once it is done with, which settles it.

        Raises:
            GatewayError: There are no first events.
        """
        check(chat, trusted=caller.trusted)
        route = self._catalogue().route(chat.model)
        caller.require(route.name)
        span = self._tracing.chat_span(caller.span, chat, stream=form is Form.STREAM)
        try:
            if route.agent is not None:
                instruct(chat, route.agent.system_prompt, force=route.agent.force_system_prompt)
            return await self._first_answer(chat, caller, route, span, form)
        except BaseException as error:
            span.end(error, attempts=int(caller.answer.get("x-twinspan-attempts", "0")))
            raise

    async def _first_answer(self, chat: chat_pb2.ChatRequest, caller: Caller, route: Route, span: ChatSpan, form: Form) -> "Answer":
        """Makes attempts until one gives its first events."""
        clock = self._clock
        limit = route.targets[0].provider.timeouts.total
        asked = caller.remaining_seconds()
        began = clock()
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
            attempt = Attempt(
                target,
                self._recorder.attempt(*target.key, caller.counts),
                self._tracing.attempt_span(
                    span,
                    provider=target.provider.name,
                    model=target.model,
                    number=number,
                    url=target.provider.url_text,
                    retry_reason=failed[-1].error.kind_name if failed else "",
                ),
                form,
            )
            try:
                response = await attempt.open(chat, self._sender, deadline - clock())
            except GatewayError as error:
                attempt.settle(error)
                failed.append(Failed(target, error))
                if _is_out_of_time(error, deadline - clock()):
                    raise out_of_time(failed, deadline - began) from error
                self._note_failure(route, target, error, clock())
            except BaseException as error:
                attempt.settle(error)
                raise
            else:
                caller.answer["x-twinspan-provider"] = target.provider.name
                caller.answer["x-twinspan-model"] = target.model
                caller.answer["x-twinspan-cache-status"] = "BYPASS"
                if target.provider.free:
                    caller.answer["x-twinspan-cost-usd"] = "0"
                return Answer(attempt, response, span, self, route, number)
        if len(route.targets) > 1:
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

    def settle(self, route: Route, attempt: Attempt, fault: BaseException | None) -> None:
        """Notes how an answer ended that had begun."""
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


class Answer:
    """The answer to one chat, from its first events on.

    It is a context manager: leaving it, in whatever way, frees the connection to the provider and settles spans and counts.

    Attributes:
        first: The first events.
        text: The whole answer as text, if it was wanted and is one; there are no events then.
    """

    __slots__ = ("_attempt", "_attempts", "_exchange", "_route", "_span", "first", "text")

    def __init__(
        self,
        attempt: Attempt,
        first: chat_pb2.StreamResponse,
        span: ChatSpan,
        exchange: Exchange,
        route: Route,
        attempts: int,
    ) -> None:
        self._attempt = attempt
        self._attempts = attempts
        self.first = first
        self.text = attempt.text
        self._span = span
        self._exchange = exchange
        self._route = route
        span.first_token()

    def next(self) -> Awaitable[chat_pb2.StreamResponse | None]:
        """Waits for the events after the first, and returns them, or None after the last.

        Raises:
            GatewayError: The answer broke off, stalled or turned into an error.
        """
        return self._attempt.next()  # not awaited here, for that would cost every piece another coroutine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._attempt.settle(error)
        self._exchange.settle(self._route, self._attempt, error)
        if self._span.recording:
            reader = self._attempt.reader
            self._span.end(
                error,
                provider=self._attempt.target.provider.name,
                attempts=self._attempts,
                info=reader.info(),
                usage=reader.usage,
                finish_reasons=reader.finish_reasons,
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


def _is_out_of_time(error: GatewayError, remaining_seconds: float) -> bool:
    return error.kind == ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT and remaining_seconds < _TIMER_SLACK_SECONDS


def out_of_time(failed: list[Failed], seconds: float) -> GatewayError:
    """Returns the error of a request whose time ended with an attempt under way. No target is to blame for it."""
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
