"""The counts as `AdminService.GetStats` shows them.

It reads what `gateway.telemetry.recorder` wrote. Cooldowns are not here: whoever routes knows them.
"""

from collections.abc import Sequence

from twinspan.v1 import admin_pb2

from gateway.telemetry.counts import TargetCounts
from gateway.telemetry.recorder import Recorder

_CHAT_SERVICE = "twinspan.v1.ChatService"


def stats(recorder: Recorder, version: str) -> admin_pb2.GetStatsResponse:
    """Returns all counts since start, without `cooldowns`.

    Args:
        recorder: What was counted.
        version: The gateway's version.
    """
    errors: dict[str, int] = {}
    for (kind, _), count in list(recorder.errors.values.items()):
        errors[kind] = errors.get(kind, 0) + count
    return admin_pb2.GetStatsResponse(
        version=version,
        uptime_seconds=recorder.clock() - recorder.started_at,
        inflight_requests=sum(counts.inflight for counts in recorder.methods.values() if counts.service == _CHAT_SERVICE),
        models=[_model_stats(target) for _, target in sorted(recorder.targets.items())],
        errors=errors,
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
    )
