"""The counts as Prometheus reads them: one collector for the core, and the rendering of a registry.

It reads what `gateway.telemetry.recorder` wrote, at the time of a scrape and never before; `docs/metrics.md` lists what it gives.
The registry is handed in, so that the bridge's own collector can stand beside this one and nothing is global.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway.siblings import Gathered, Standing
from gateway.telemetry.conditions import BillingCondition, Conditions
from gateway.telemetry.counts import OPERATION_SECONDS, BatchCounts, TargetCounts
from gateway.telemetry.histogram import Histogram, merged
from gateway.telemetry.process import ProcessesCollector
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.totals import total

_METHOD = ("service", "method")
_TARGET = ("model", "agent", "provider")
_TOO_LONG = "context_exceeded"


class GatewayCollector(Collector):
    """Gives what the core has counted."""

    def __init__(self, recorder: Recorder, version: str, standing: Standing | None = None, tasks: int | None = None) -> None:
        """Makes a collector; `register` does so and registers it.

        Args:
            recorder: What is counted.
            version: The gateway's version.
            standing: How the processes stand that have counted it; None for one by itself.
            tasks: How many tasks their event loops have; None if that is not known, or to be counted.
        """
        self._recorder = recorder
        self._version = version
        self._standing = standing or Standing(0.0)
        self._tasks = tasks
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Counts this loop's tasks from now on."""
        self._loop = loop

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: names are unique by their prefix, so the registry need not collect to learn them."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields every metric."""
        # A scrape may run in a thread of its own, so tables are copied before they are walked: a copy is one step under the GIL.
        yield from self._calls()
        yield from _targets(list(self._recorder.targets.values()))
        yield from self._events()
        yield from _conditions(self._recorder.conditions())
        yield from _batches(self._recorder.batches)
        yield from self._process()

    def _calls(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("twinspan_grpc_requests", "RPCs that have ended.", labels=(*_METHOD, "code"))
        inflight = GaugeMetricFamily("twinspan_inflight_requests", "RPCs under way.", labels=_METHOD)
        duration = HistogramMetricFamily(
            "twinspan_request_duration_seconds", "Time from an RPC's start to its end.", labels=_METHOD
        )
        overhead = HistogramMetricFamily(
            "twinspan_gateway_overhead_seconds", "Time of an RPC in which no request to a provider was under way.", labels=_METHOD
        )
        for counts in list(self._recorder.methods.values()):
            labels = (counts.service, counts.method)
            for code, count in list(counts.codes.items()):
                requests.add_metric((*labels, code), count)
            inflight.add_metric(labels, counts.inflight)
            _add(duration, labels, counts.duration)
            _add(overhead, labels, counts.overhead)
        return iter((requests, inflight, duration, overhead))

    def _events(self) -> Iterator[Metric]:
        recorder = self._recorder
        for name, text, labels, table in (
            (
                "forwarded_bytes",
                "Bytes of bodies and frames that were forwarded as they are.",
                ("direction", "provider"),
                recorder.forwarded,
            ),
            ("errors", "RPCs that failed, by error kind.", ("kind", "provider"), recorder.errors),
            ("stream_interrupts", "Streams that broke after their first event.", ("reason",), recorder.stream_interrupts),
            ("auth_failure", "Requests without a known credential.", ("type",), recorder.auth_failures),
            (
                "ratelimit_rejected",
                "Requests that were over a limit, and attempts that were over a host's.",
                ("scope", "limit"),
                recorder.limit_rejections,
            ),
            ("budget_rejected", "Requests that were over a budget.", ("scope",), recorder.budget_rejections),
            ("cb_transitions", "Changes of breakers, by what they became.", ("state",), recorder.breaker_transitions),
            (
                "session_pin_changes",
                "Conversations that went on with another target.",
                ("reason",),
                recorder.session_changes,
            ),
            (
                "account_selection",
                "Requests through one of a provider's accounts, by how they went.",
                ("provider", "account", "result"),
                recorder.account_selections,
            ),
            (
                "model_discovery",
                "Lists of models that providers were asked for.",
                ("provider", "result"),
                recorder.model_discoveries,
            ),
            ("auth_denials", "Requests that their credential does not allow.", ("reason",), recorder.auth_denials),
        ):
            family = CounterMetricFamily(f"twinspan_{name}", text, labels=labels)
            for values, count in list(table.values.items()):
                family.add_metric(values, count)
            yield family
        for name, text, count in (
            ("auth_success", "Requests with a known credential.", recorder.auth_successes),
            ("retries", "Attempts that followed a failed one.", recorder.retries),
            ("store_failures", "Times that the state store could not be reached.", recorder.store_failures),
            ("summarization_retries", "Conversations that were too long, summarised, and asked again.", recorder.summaries),
            ("hedges", "Second targets that were asked since the first took long.", recorder.hedges),
            ("key_store_failures", "Times that the key store could not be read or changed.", recorder.key_store_failures),
            ("panics", "Exceptions that nobody foresaw.", recorder.panics),
            ("stream_stalled", "Streams in which the provider fell silent for too long.", recorder.streams_stalled),
            ("empty_stream", "Streams that the provider ended without saying anything.", recorder.streams_empty),
            ("agent_cooldowns", "Times that a breaker of an agent's target opened.", recorder.cooldowns),
            ("agent_targets_exhausted", "Requests for which every target of the agent failed.", recorder.exhaustions),
        ):
            yield CounterMetricFamily(f"twinspan_{name}", text, value=count)

    def _process(self) -> Iterator[Metric]:
        recorder = self._recorder
        build = {"version": self._version, "python": platform.python_version()}
        yield InfoMetricFamily("twinspan_build", "What runs.", value=build)
        uptime = recorder.clock() - recorder.started_at
        yield GaugeMetricFamily("twinspan_uptime_seconds", "Time since the start.", value=uptime)
        lag = HistogramMetricFamily("twinspan_event_loop_lag_seconds", "How late the event loop was for a timer.")
        _add(lag, (), recorder.loop_lag)
        yield lag
        standing = self._standing
        yield GaugeMetricFamily("twinspan_workers", "Processes that serve.", value=standing.workers)
        text = "Processes that died and were put in their place again."
        yield CounterMetricFamily("twinspan_worker_restarts", text, value=standing.restarts)
        text = "Times that a process did not tell its counts in time, so that older ones stood in."
        yield CounterMetricFamily("twinspan_worker_silences", text, value=standing.silences)
        tasks = self._tasks if self._loop is None else len(asyncio.all_tasks(self._loop))
        if tasks is not None:
            yield GaugeMetricFamily("twinspan_asyncio_tasks", "Tasks of the event loop.", value=tasks)


def register(registry: CollectorRegistry, recorder: Recorder, version: str) -> GatewayCollector:
    """Adds the core's metrics and those of the process (memory, CPU, open files) to a registry.

    Args:
        registry: A registry of one's own, never the global one.
        recorder: What is counted.
        version: The gateway's version.
    """
    collector = GatewayCollector(recorder, version)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return collector


def register_all(registry: CollectorRegistry, gathered: Gathered, version: str) -> None:
    """Adds the metrics of all processes that serve to a registry, as sums.

    Args:
        registry: A registry of one's own, for one scrape.
        gathered: What they have counted.
        version: The gateway's version.
    """
    sums = total(gathered.reports, gathered.standing.started_at)
    tasks = int(sums.process.get("asyncio_tasks", 0))
    registry.register(GatewayCollector(sums.recorder, version, gathered.standing, tasks))
    registry.register(ProcessesCollector(sums.process))


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Returns all metrics of a registry, and their content type.

    It takes about 10 µs a sample, so with hundreds of targets it belongs into a thread: `asyncio.to_thread(render, ...)` is safe.

    Args:
        registry: The registry.
        accept: The `Accept` header; OpenMetrics, which alone has exemplars, is given to whoever asks for it.
    """
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _targets(targets: list[TargetCounts]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[TargetCounts], float]], ...] = (
        ("upstream_requests", "Requests to providers that have ended.", lambda target: target.attempts),
        (
            "upstream_errors",
            "Requests to providers that failed, callers' cancellations not among them.",
            lambda target: target.errors,
        ),
        ("cost_usd", "What requests cost in US dollars, where the price is known.", lambda target: target.cost_usd),
        (
            "unpriced_requests",
            "Requests to providers that consumed something whose price is not known.",
            lambda target: target.unpriced,
        ),
        ("reasoning_tokens", "Tokens spent on reasoning, which are among the output.", lambda target: target.reasoning_tokens),
    )
    for name, text, value in counters:
        family = CounterMetricFamily(f"twinspan_{name}", text, labels=_TARGET)
        for target in targets:
            family.add_metric(_labels(target), value(target))
        yield family
    tokens = CounterMetricFamily("twinspan_tokens", "Tokens that providers counted.", labels=("direction", *_TARGET))
    cached = CounterMetricFamily(
        "twinspan_provider_cache_tokens", "Input tokens by what the provider's cache did.", labels=("kind",)
    )
    for target in targets:
        tokens.add_metric(("input", *_labels(target)), target.input_tokens)
        tokens.add_metric(("output", *_labels(target)), target.output_tokens)
    cached.add_metric(("hit",), sum(target.cache_hit_tokens for target in targets))
    cached.add_metric(("miss",), sum(target.cache_miss_tokens for target in targets))
    cached.add_metric(("creation",), sum(target.cache_creation_tokens for target in targets))
    yield tokens
    yield cached
    too_long = sum(found.count for target in targets if (found := target.durations.get(_TOO_LONG)) is not None)
    text = "Requests to providers that were longer than the model's context."
    yield CounterMetricFamily("twinspan_context_limit_errors", text, value=too_long)
    histograms: tuple[tuple[str, str, Callable[[TargetCounts], Histogram]], ...] = (
        ("upstream_request_duration", "Time from a request to a provider to the end of its answer.", _duration),
        ("ttft", "Time from a request to a provider to the first piece of its answer.", lambda target: target.ttft),
        ("inter_token", "Time between two pieces of a provider's answer.", lambda target: target.inter_token),
    )
    for name, text, histogram in histograms:
        durations = HistogramMetricFamily(f"twinspan_{name}_seconds", text, labels=_TARGET)
        for target in targets:
            _add(durations, _labels(target), histogram(target))
        yield durations


def _batches(counts: BatchCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("twinspan_batches_active", "Batches under way.", value=counts.active)
    yield GaugeMetricFamily("twinspan_batch_lines_pending", "Requests of batches under way that wait.", value=counts.pending)
    lines = CounterMetricFamily("twinspan_batch_lines", "Requests of batches that were answered.", labels=("result",))
    lines.add_metric(("completed",), counts.completed)
    lines.add_metric(("failed",), counts.failed)
    yield lines


def _conditions(conditions: Conditions) -> Iterator[Metric]:
    states = GaugeMetricFamily("twinspan_cb_state", "Breakers: 0 closed, 1 open, 2 half-open.", labels=("key",))
    for breaker in conditions.breakers:
        states.add_metric((f"{breaker.agent}/{breaker.provider}/{breaker.model}",), breaker.state)
    yield states
    for of, name in (("requests", "rpm"), ("tokens", "tpm")):
        available = GaugeMetricFamily(
            f"twinspan_ratelimit_{name}_available", f"What of a host's {of} a minute is left.", labels=("host",)
        )
        for host, kind, left in conditions.hosts:
            if kind == of:
                available.add_metric((host,), left)
        yield available
    yield GaugeMetricFamily("twinspan_session_active", "Conversations that stay with a target.", value=conditions.sessions)
    yield from _billing(conditions.billing)


def _billing(states: Iterable[BillingCondition]) -> Iterator[Metric]:
    spent = GaugeMetricFamily(
        "twinspan_billing_spend_usd", "What was spent at a provider whose billing is configured.", labels=("provider",)
    )
    exhausted = GaugeMetricFamily(
        "twinspan_billing_exhausted", "Whether nothing is left at a provider: 1 if so.", labels=("provider",)
    )
    for state in states:
        spent.add_metric((state.provider,), state.spent_usd)
        exhausted.add_metric((state.provider,), float(state.exhausted))
    yield spent
    yield exhausted


def _labels(target: TargetCounts) -> tuple[str, str, str]:
    return target.model, target.agent, target.provider


def _duration(target: TargetCounts) -> Histogram:
    return merged(list(target.durations.values()), OPERATION_SECONDS)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    total = 0
    for position, count in enumerate(list(histogram.counts)):
        total += count
        bound = str(histogram.bounds[position]) if position < len(histogram.bounds) else "+Inf"
        exemplar = histogram.exemplars.get(position)
        if exemplar is None:
            buckets.append((bound, total))
        else:
            buckets.append((bound, total, Exemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.timestamp)))
    family.add_metric(labels, buckets, histogram.sum)
