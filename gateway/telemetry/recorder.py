"""The one place where the core tells what happened: every call here feeds metrics, stats and OTLP alike.

The interceptors open a `Call` for an RPC, the exchange opens an `Attempt` for each request to a provider, and both end them in a
`finally`; what has no duration is a method of its own. Everything runs on the event loop's thread and costs well under a
microsecond, since it only adds to plain numbers (`gateway.telemetry.counts`). Nothing here knows Prometheus, OTLP or gRPC.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from twinspan.v1.content_pb2 import Usage

from gateway.telemetry.conditions import Conditions
from gateway.telemetry.counts import (
    LAG_LIMIT,
    LAG_SECONDS,
    OK,
    OPERATION_SECONDS,
    OTHER,
    BatchCounts,
    LabelCounts,
    MethodCounts,
    ProviderCounts,
    TargetCounts,
)
from gateway.telemetry.histogram import Histogram

_METHOD_LIMIT = 200
_BREAKER_STATES = ("closed", "open", "half-open")


class Attempt:
    """One request to one target, from its start to its end.

    Attributes:
        seconds: How long it took; 0 until it has ended.
    """

    __slots__ = ("_call", "_clock", "_last", "_started", "_target", "seconds")

    def __init__(self, target: TargetCounts, clock: Callable[[], float], call: "Call | None") -> None:
        self._target: TargetCounts | None = target
        self._clock = clock
        self._call = call
        self._last = 0.0
        self._started = clock()
        self.seconds = 0.0

    def chunk(self, trace_id: str | None = None) -> None:
        """Tells that a piece of the answer has come: the first gives the time to first token, each later one the gap before it.

        Args:
            trace_id: The trace, if it is sampled; of use with the first piece alone.
        """
        now = self._clock()
        target = self._target
        if target is None:
            return
        if not self._last:
            self._last = now
            target.ttft.observe(now - self._started, trace_id)
            return
        # `Histogram.observe` by hand: this runs for every chunk of every stream, and a call would double its cost.
        gap = now - self._last
        self._last = now
        histogram = target.inter_token
        histogram.counts[bisect_left(histogram.bounds, gap)] += 1
        histogram.sum += gap

    def end(
        self, error: str | None = None, *, usage: Usage | None = None, cost_usd: float | None = None, trace_id: str | None = None
    ) -> None:
        """Ends the attempt; only the first call counts.

        Args:
            error: The error's kind, such as `rate_limited`; `cancelled` if the caller went away; None if it worked.
            usage: What the provider said it consumed, also if the attempt failed.
            cost_usd: What that costs, in US dollars; None if the price is not known.
            trace_id: The trace, if it is sampled: it becomes the exemplar of the attempt's duration.
        """
        target = self._target
        if target is None:
            return
        self._target = None
        now = self._clock()
        self.seconds = seconds = now - self._started
        if self._call is not None:
            self._call.upstream_seconds += seconds
        outcome = error or OK
        durations = target.durations.get(outcome)
        if durations is None:
            durations = target.durations[outcome] = Histogram(OPERATION_SECONDS)
        durations.observe(seconds, trace_id)
        target.recent.append(seconds)
        target.health.ended(error, seconds, now)
        if usage is not None:
            _add_usage(target, usage)
        if cost_usd is not None:
            target.cost_usd += cost_usd
        elif usage is not None:
            target.unpriced += 1


class Call:
    """One RPC, from its start to its end.

    Attributes:
        upstream_seconds: How long attempts were under way; each attempt that was opened with this call adds to it.
    """

    __slots__ = ("_clock", "_errors", "_method", "_started", "upstream_seconds")

    def __init__(self, method: MethodCounts, errors: LabelCounts, clock: Callable[[], float]) -> None:
        self._method: MethodCounts | None = method
        self._errors = errors
        self._clock = clock
        self.upstream_seconds = 0.0
        method.inflight += 1
        self._started = clock()

    def end(self, code: str, *, error: str | None = None, provider: str = "", trace_id: str | None = None) -> None:
        """Ends the call; only the first call counts.

        Args:
            code: The gRPC status code's name, such as `OK`.
            error: The error's kind, if it failed.
            provider: The provider concerned, if the error has one.
            trace_id: The trace, if it is sampled: it becomes the exemplar of the call's duration.
        """
        method = self._method
        if method is None:
            return
        self._method = None
        seconds = self._clock() - self._started
        method.inflight -= 1
        method.codes[code] = method.codes.get(code, 0) + 1
        method.duration.observe(seconds, trace_id)
        # Two attempts at once can make their sum exceed the whole.
        method.overhead.observe(max(0.0, seconds - self.upstream_seconds))
        if error is not None:
            self._errors.add(error, provider)


class Recorder:
    """Counts what the core does.

    Attributes:
        started_at: When it was made, on its own clock, in seconds.
        clock: Seconds that only rise.
        targets: Counts by agent, provider and model.
        methods: Counts by an RPC's full method name.
        errors: Failed calls by error kind and provider.
        auth_failures: Requests without a known credential, by type.
        auth_denials: Requests that their credential does not allow, by reason.
        stream_interrupts: Streams that broke after their first event, by reason.
        forwarded: Bytes of forwarded bodies, by direction and provider.
        providers: How providers are, by name.
        account_selections: Requests through accounts, by provider, account and how they went.
        conditions: Returns how things stand beside what is counted.
        batches: What batches have done.
        loop_lag: Seconds by which the event loop was late.
        recent_lags: The last of them, oldest first.
    """

    def __init__(
        self, *, target_limit: int = 1000, usage_histograms: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Makes a recorder that has counted nothing.

        Args:
            target_limit: How many targets are told apart; the others are counted together as `other`.
            usage_histograms: Whether to keep tokens as histograms too, which OTLP metrics need.
            clock: Seconds that only rise.
        """
        self.clock = clock
        self.started_at = clock()
        self.targets: dict[tuple[str, str, str], TargetCounts] = {}
        self.methods: dict[str, MethodCounts] = {}
        self.errors = LabelCounts()
        self.auth_failures = LabelCounts()
        self.auth_denials = LabelCounts()
        self.stream_interrupts = LabelCounts()
        self.forwarded = LabelCounts()
        self.providers: dict[str, ProviderCounts] = {}
        self.batches = BatchCounts()
        self.model_discoveries = LabelCounts()
        self.limit_rejections = LabelCounts()
        self.budget_rejections = LabelCounts()
        self.session_changes = LabelCounts()
        self.breaker_transitions = LabelCounts()
        self.hedges = 0
        self.summaries = 0
        self.conditions: Callable[[], Conditions] = Conditions
        self.account_selections = LabelCounts()
        self.store_failures = 0
        self.key_store_failures = 0
        self.loop_lag = Histogram(LAG_SECONDS)
        self.recent_lags: deque[float] = deque(maxlen=LAG_LIMIT)
        self.auth_successes = 0
        self.retries = 0
        self.panics = 0
        self.streams_stalled = 0
        self.streams_empty = 0
        self.cooldowns = 0
        self.exhaustions = 0
        self._target_limit = target_limit
        self._usage_histograms = usage_histograms

    def call(self, method: str) -> Call:
        """Begins an RPC, which its owner must end.

        Args:
            method: The full name with its slash, such as `/twinspan.v1.ChatService/Stream`.
        """
        counts = self.methods.get(method)
        if counts is None:
            counts = self.method(method)
        return Call(counts, self.errors, self.clock)

    def attempt(self, agent: str, provider: str, model: str, call: Call | None = None) -> Attempt:
        """Begins an attempt, which its owner must end.

        Args:
            agent: The agent's name; empty if the model was asked for by its own name.
            provider: The provider's name.
            model: The model's name.
            call: The RPC for which it is made.
        """
        target = self.targets.get((agent, provider, model))
        if target is None:
            target = self.target(agent, provider, model)
        return Attempt(target, self.clock, call)

    def retried(self) -> None:
        """Tells that another attempt follows one that failed."""
        self.retries += 1

    def panicked(self) -> None:
        """Tells of an exception that nobody foresaw."""
        self.panics += 1

    def stream_interrupted(self, reason: str) -> None:
        """Tells that a stream broke after its first event.

        Args:
            reason: The error's kind, such as `provider_timeout` or `cancelled`.
        """
        self.stream_interrupts.add(reason)

    def stream_stalled(self) -> None:
        """Tells that a provider fell silent for longer than the idle timeout."""
        self.streams_stalled += 1

    def stream_empty(self) -> None:
        """Tells that a provider ended a stream without saying anything."""
        self.streams_empty += 1

    def body_forwarded(self, direction: str, size_bytes: int, provider: str) -> None:
        """Tells that a piece of a body, or a frame, was forwarded as it is.

        Args:
            direction: `sent` to the provider, or `received` from it.
            size_bytes: How long it was.
            provider: The provider's name.
        """
        self.forwarded.add(direction, provider, amount=size_bytes)

    def loop_was_late(self, seconds: float) -> None:
        """Tells by how much the event loop was late."""
        self.loop_lag.observe(seconds)
        self.recent_lags.append(seconds)

    def target_cooled_down(self) -> None:
        """Tells that an agent passes over a target from now on."""
        self.cooldowns += 1

    def targets_exhausted(self) -> None:
        """Tells that every target of an agent failed."""
        self.exhaustions += 1

    def rate_limited(self, scope: str, limit: str) -> None:
        """Tells that a request was not let in, or that a provider was not asked.

        Args:
            scope: Whose limit was reached: `key`, `team`, `agent` or `host`.
            limit: Which: `requests`, `tokens` or `parallel`.
        """
        self.limit_rejections.add(scope, limit)

    def budget_exceeded(self, scope: str) -> None:
        """Tells that a request was not let in since a budget has not enough left.

        Args:
            scope: Whose: `key`, `team` or `agent`.
        """
        self.budget_rejections.add(scope)

    def session_moved(self, reason: str) -> None:
        """Tells that a conversation goes on with another target than before.

        Args:
            reason: `failure` of its target in this request, or `unavailable` from the start.
        """
        self.session_changes.add(reason)

    def breaker_moved(self, state: int) -> None:
        """Tells that a breaker has changed.

        Args:
            state: Into what: 0 closed, 1 open, 2 half-open.
        """
        self.breaker_transitions.add(_BREAKER_STATES[state])

    def hedged(self) -> None:
        """Tells that a second target was asked since the first took long."""
        self.hedges += 1

    def account_selected(self, provider: str, account: str, result: str) -> None:
        """Tells how a request through one of several accounts went.

        Args:
            provider: The provider's name.
            account: The account's id; empty if none could be taken.
            result: `ok`, `cancelled`, `unavailable` if none could be taken, or what the error blames, such as `rate`.
        """
        self.account_selections.add(provider, account, result)

    def store_failed(self) -> None:
        """Tells that the state store could not be reached, or failed."""
        self.store_failures += 1

    def key_store_failed(self) -> None:
        """Tells that the key store could not be read or changed."""
        self.key_store_failures += 1

    def summarised(self) -> None:
        """Tells that a conversation that was too long was summarised and is asked again."""
        self.summaries += 1

    def authenticated(self) -> None:
        """Tells that a credential was known."""
        self.auth_successes += 1

    def auth_failed(self, failure: str) -> None:
        """Tells that a request had no known credential.

        Args:
            failure: What was wrong with it: `missing` or `unknown`, say. Never the credential.
        """
        self.auth_failures.add(failure)

    def auth_denied(self, reason: str) -> None:
        """Tells that a known credential does not allow a request.

        Args:
            reason: Why: `role`, `endpoint`, `agent`, `disabled` or `expired`, say.
        """
        self.auth_denials.add(reason)

    def models_discovered(self, provider: str, result: str) -> None:
        """Tells that a provider was asked for its models.

        Args:
            provider: The provider's name.
            result: `ok`, or the error's kind.
        """
        self.model_discoveries.add(provider, result)

    def method(self, name: str) -> MethodCounts:
        """Returns the counts of an RPC, by its full name."""
        if len(self.methods) >= _METHOD_LIMIT:
            name = f"/{OTHER}/{OTHER}"
        counts = self.methods.get(name)
        if counts is None:
            service, _, method = name.removeprefix("/").rpartition("/")
            counts = self.methods[name] = MethodCounts(service, method)
        return counts

    def target(self, agent: str, provider: str, model: str) -> TargetCounts:
        """Returns the counts of a target."""
        # Model names come from callers wherever a provider is asked for a model that the catalogue does not know.
        if len(self.targets) >= self._target_limit:
            agent = provider = model = OTHER
        target = self.targets.get((agent, provider, model))
        if target is None:
            health = self.providers.setdefault(provider, ProviderCounts())
            target = TargetCounts(agent, provider, model, health, usage_histograms=self._usage_histograms)
            self.targets[agent, provider, model] = target
        return target


def _add_usage(target: TargetCounts, usage: Usage) -> None:
    input_tokens = usage.input_tokens
    output_tokens = usage.output_tokens
    target.input_tokens += input_tokens
    target.output_tokens += output_tokens
    target.reasoning_tokens += usage.reasoning_tokens
    target.cache_creation_tokens += usage.cache_creation_input_tokens
    if usage.HasField("cached_input_tokens"):
        cached = usage.cached_input_tokens
        target.cache_hit_tokens += cached
        target.cache_miss_tokens += max(0, input_tokens - cached)
    if target.input_usage is not None and target.output_usage is not None:
        target.input_usage.observe(input_tokens)
        target.output_usage.observe(output_tokens)
