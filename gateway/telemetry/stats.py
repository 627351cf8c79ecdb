"""The counts as `AdminService.GetStats` shows them.

It reads what `gateway.telemetry.recorder` wrote, and asks it how things stand; of the process it knows only the lag. It may be
called in a thread: tables and rows of samples are copied, each in one step, before they are walked.
"""

from collections.abc import Iterable, Sequence

from twinspan.v1 import admin_pb2

from gateway.telemetry.conditions import Conditions
from gateway.telemetry.counts import ProviderCounts, TargetCounts
from gateway.telemetry.recorder import Recorder

_OTHER_SERVICES = frozenset(f"twinspan.v1.{name}" for name in ("AdminService", "BatchesService", "FilesService", "ModelsService"))
"""The services that use no model."""

_DEGRADED, _FAILING = 0.1, 0.5
"""The shares of failed attempts from which on a provider is called so."""


def stats(recorder: Recorder, version: str) -> admin_pb2.GetStatsResponse:
    """Returns all counts since start, without what the operating system says of the process.

    Args:
        recorder: What was counted.
        version: The gateway's version.
    """
    errors: dict[str, int] = {}
    for (kind, _), count in list(recorder.errors.values.items()):
        errors[kind] = errors.get(kind, 0) + count
    targets = [target for _, target in sorted(recorder.targets.items())]
    by_provider: dict[str, list[TargetCounts]] = {name: [] for name in sorted(recorder.providers)}
    for target in targets:
        by_provider.setdefault(target.provider, []).append(target)
    now = recorder.clock()
    lags = sorted(recorder.recent_lags)
    batches = recorder.batches
    response = admin_pb2.GetStatsResponse(
        version=version,
        uptime_seconds=now - recorder.started_at,
        inflight_requests=sum(
            counts.inflight for counts in list(recorder.methods.values()) if counts.service not in _OTHER_SERVICES
        ),
        models=[_model_stats(target) for target in targets],
        errors=errors,
        totals=_total_stats(targets),
        providers=[_provider_stats(name, recorder.providers[name], asked, now) for name, asked in by_provider.items()],
        billing=_billing_stats(targets),
        batches=admin_pb2.BatchStats(
            active=batches.active,
            pending_requests=batches.pending,
            completed_requests=batches.completed,
            failed_requests=batches.failed,
        ),
        process=admin_pb2.ProcessStats(
            event_loop_lag_p50_seconds=percentile(lags, 0.5), event_loop_lag_p99_seconds=percentile(lags, 0.99)
        ),
    )
    _add_conditions(response, recorder.conditions())
    return response


def _add_conditions(response: admin_pb2.GetStatsResponse, conditions: Conditions) -> None:
    for breaker in conditions.breakers:
        if breaker.failures or breaker.state:
            response.breakers.add(
                agent=breaker.agent,
                provider=breaker.provider,
                model=breaker.model,
                failures=breaker.failures,
                remaining_seconds=breaker.remaining_seconds,
                last_error=breaker.last_error,
                state=breaker.state_name,
            )
    for account in conditions.accounts:
        response.accounts.add(
            provider=account.provider,
            account=account.account,
            model=account.model,
            state="resting" if account.remaining_seconds else "ready",
            remaining_seconds=account.remaining_seconds,
            last_error=account.last_error,
        )
    for bill in conditions.billing:
        response.billing.providers.add(
            provider=bill.provider,
            model=bill.model,
            spent_usd=bill.spent_usd,
            credit_usd=bill.credit_usd,
            remaining=bill.remaining,
            limit=bill.limit,
            exhausted=bill.exhausted,
            remaining_seconds=bill.remaining_seconds,
        )


def percentile(ascending: Sequence[float], fraction: float) -> float:
    """Returns the smallest value that at least this fraction of all values do not exceed (the nearest rank); 0 if there is none.

    Args:
        ascending: The values, rising.
        fraction: Above 0 and at most 1.
    """
    if not ascending:
        return 0.0
    rank = -int(-len(ascending) * fraction // 1)
    return ascending[rank - 1]


def _model_stats(target: TargetCounts) -> admin_pb2.ModelStats:
    recent = sorted(target.recent)
    return admin_pb2.ModelStats(
        agent=target.agent,
        provider=target.provider,
        model=target.model,
        requests=target.attempts,
        errors=target.errors,
        input_tokens=target.input_tokens,
        output_tokens=target.output_tokens,
        reasoning_tokens=target.reasoning_tokens,
        cache_hit_tokens=target.cache_hit_tokens,
        cache_miss_tokens=target.cache_miss_tokens,
        cache_creation_tokens=target.cache_creation_tokens,
        latency_p50_seconds=percentile(recent, 0.5),
        latency_p95_seconds=percentile(recent, 0.95),
        latency_p99_seconds=percentile(recent, 0.99),
        cost_usd=target.cost_usd,
        unpriced_requests=target.unpriced,
    )


def _total_stats(targets: Iterable[TargetCounts]) -> admin_pb2.TotalStats:
    totals = admin_pb2.TotalStats()
    for target in targets:
        totals.requests += target.attempts
        totals.errors += target.errors
        totals.input_tokens += target.input_tokens
        totals.output_tokens += target.output_tokens
        totals.reasoning_tokens += target.reasoning_tokens
        totals.cache_hit_tokens += target.cache_hit_tokens
        totals.cache_miss_tokens += target.cache_miss_tokens
        totals.cache_creation_tokens += target.cache_creation_tokens
    return totals


def _provider_stats(name: str, counts: ProviderCounts, targets: Sequence[TargetCounts], now: float) -> admin_pb2.ProviderStats:
    failures = list(counts.failures)
    rate = sum(failures) / len(failures) if failures else 0.0
    answer = admin_pb2.ProviderStats(
        provider=name,
        state=_state(rate) if failures else "unknown",
        requests=sum(target.attempts for target in targets),
        errors=sum(target.errors for target in targets),
        recent_error_rate=rate,
        latency_p50_seconds=percentile(sorted(counts.recent), 0.5),
        last_error=counts.last_error,
    )
    if counts.last_error:
        answer.last_error_seconds_ago = now - counts.last_error_at
    if counts.last_success_at is not None:
        answer.last_success_seconds_ago = now - counts.last_success_at
    return answer


def _state(rate: float) -> str:
    return "failing" if rate >= _FAILING else "degraded" if rate >= _DEGRADED else "healthy"


def _billing_stats(targets: Iterable[TargetCounts]) -> admin_pb2.BillingStats:
    billing = admin_pb2.BillingStats()
    for target in targets:
        billing.cost_usd += target.cost_usd
        billing.cost_usd_by_provider[target.provider] += target.cost_usd
        billing.unpriced_requests += target.unpriced
    return billing
