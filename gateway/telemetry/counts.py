"""What is counted, as plain numbers: one object per target, one per RPC, and small tables of labels.

`gateway.telemetry.recorder` writes them on the event loop's thread; `stats`, `metrics` and `genai` read them. So a figure of
`/statsz`, of `/metrics` and of OTLP is one and the same number. Every table here has a limit, since some of its keys come from
callers.
"""

from collections import deque

from gateway.failures import BLAMING
from gateway.telemetry.histogram import Histogram

OTHER = "other"
"""The label of everything beyond a table's limit."""

OK = ""
"""The outcome of an attempt that worked, where others have an error kind."""

CANCELLED = "cancelled"
"""The outcome of an attempt whose caller went away."""

RECENT_LIMIT = 512
"""How many durations a target keeps for its percentiles."""

HEALTH_LIMIT = 100
"""How many outcomes tell how a provider is."""

LAG_LIMIT = 1200
"""How many samples of the event loop's lag are kept: those of ten minutes."""

# The bounds that the GenAI semantic conventions ask for, so that one histogram serves Prometheus and OTLP.
OPERATION_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

INTER_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class ProviderCounts:
    """How a provider is, as its attempts show.

    Attributes:
        recent: Durations of the last attempts that worked, oldest first.
        failures: Of the last attempts that say something of the provider, which failed by its fault; oldest first.
        last_error: The kind of the last such failure; empty if there was none.
        last_error_at: When it was, on the recorder's clock.
        last_success_at: When an attempt last worked, on the recorder's clock; None if none has.
    """

    __slots__ = ("failures", "last_error", "last_error_at", "last_success_at", "recent")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT_LIMIT)
        self.failures: deque[bool] = deque(maxlen=HEALTH_LIMIT)
        self.last_error = ""
        self.last_error_at = 0.0
        self.last_success_at: float | None = None

    def ended(self, error: str | None, seconds: float, now: float) -> None:
        """Notes how an attempt ended; errors that are the request's own, or the caller's, say nothing of the provider."""
        if error is None:
            self.recent.append(seconds)
            self.failures.append(False)
            self.last_success_at = now
        elif error in BLAMING:
            self.failures.append(True)
            self.last_error = error
            self.last_error_at = now


class BatchCounts:
    """What the batches of this gateway have done since start.

    Attributes:
        active: Batches under way.
        pending: Requests of theirs that are not answered yet.
        completed: Requests that were answered with success.
        failed: Requests that were answered with a failure.
    """

    __slots__ = ("active", "completed", "failed", "pending")

    def __init__(self) -> None:
        self.active = 0
        self.pending = 0
        self.completed = 0
        self.failed = 0

    def answered(self, *, ok: bool) -> None:
        """Counts an answered request."""
        if ok:
            self.completed += 1
        else:
            self.failed += 1


class TargetCounts:
    """What one model of one provider has done for one agent.

    Attributes:
        agent: The agent's name; empty if the model was asked for by its own name.
        provider: The provider's name.
        model: The model's name.
        durations: Durations of attempts in seconds, by outcome: `OK`, `CANCELLED` or another error kind.
        recent: Durations of the last attempts, oldest first.
        ttft: Seconds from an attempt's start to its first chunk.
        inter_token: Seconds between chunks.
        cost_usd: What it cost, where the price is known.
        unpriced: Attempts that consumed something whose price is not known.
        health: How the provider is.
        input_usage: Tokens read per attempt; None unless OTLP metrics are on.
        output_usage: Tokens written per attempt; None unless OTLP metrics are on.
    """

    __slots__ = (
        "agent",
        "cache_creation_tokens",
        "cache_hit_tokens",
        "cache_miss_tokens",
        "cost_usd",
        "durations",
        "health",
        "input_tokens",
        "input_usage",
        "inter_token",
        "model",
        "output_tokens",
        "output_usage",
        "provider",
        "reasoning_tokens",
        "recent",
        "ttft",
        "unpriced",
    )

    def __init__(self, agent: str, provider: str, model: str, health: ProviderCounts, *, usage_histograms: bool = False) -> None:
        self.agent = agent
        self.provider = provider
        self.model = model
        self.health = health
        self.durations: dict[str, Histogram] = {}
        self.recent: deque[float] = deque(maxlen=RECENT_LIMIT)
        self.ttft = Histogram(TTFT_SECONDS)
        self.inter_token = Histogram(INTER_TOKEN_SECONDS)
        self.input_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0
        self.cache_hit_tokens = 0
        self.cache_miss_tokens = 0
        self.cache_creation_tokens = 0
        self.cost_usd = 0.0
        self.unpriced = 0
        self.input_usage = Histogram(TOKENS) if usage_histograms else None
        self.output_usage = Histogram(TOKENS) if usage_histograms else None

    @property
    def attempts(self) -> int:
        """Attempts that have ended."""
        return sum(histogram.count for histogram in list(self.durations.values()))

    @property
    def errors(self) -> int:
        """Attempts that failed, the callers' own cancellations not among them."""
        return sum(histogram.count for outcome, histogram in list(self.durations.items()) if outcome not in {OK, CANCELLED})


class MethodCounts:
    """What one RPC has done.

    Attributes:
        service: The service's full name.
        method: The method's name.
        codes: Ended calls by gRPC status code, such as `OK`.
        inflight: Calls under way.
        duration: Seconds a call took.
        overhead: Seconds of a call in which no attempt was under way.
    """

    __slots__ = ("codes", "duration", "inflight", "method", "overhead", "service")

    def __init__(self, service: str, method: str) -> None:
        self.service = service
        self.method = method
        self.codes: dict[str, int] = {}
        self.inflight = 0
        self.duration = Histogram(OPERATION_SECONDS)
        self.overhead = Histogram(OVERHEAD_SECONDS)


class LabelCounts:
    """Counts by label values, at most `limit` combinations; what comes after them is counted as `other`.

    Attributes:
        values: The counts by label values.
    """

    __slots__ = ("_limit", "values")

    def __init__(self, limit: int = 200) -> None:
        self.values: dict[tuple[str, ...], int] = {}
        self._limit = limit

    def add(self, *labels: str, amount: int = 1) -> None:
        """Counts one, or as many as are given."""
        values = self.values
        if labels not in values and len(values) >= self._limit:
            labels = (OTHER,) * len(labels)
        values[labels] = values.get(labels, 0) + amount
