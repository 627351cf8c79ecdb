"""`twinspan stats`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.stats import report
from tests.flows.commands import run, started
from tests.flows.running import TOKEN, Running, configuration, running
from tests.flows.upstream import MODEL, Upstream

HELLO = {"model": MODEL, "stream": False, "messages": [{"role": "user", "content": "Hello"}]}


def place(twinspan: Running, surface: str) -> list[str]:
    return ["--url", twinspan.url] if surface == "rest" else ["--grpc", twinspan.target]


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_it_shows_the_counts_without_a_credential(twinspan: Running, tmp_path: Path, surface: str) -> None:
    await twinspan.chat(HELLO)
    shown = await run("stats", *place(twinspan, surface), cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "requests to providers: 1, errors: 0" in shown.out
    assert "tokens read: 9, written: 3\ncost: $0.000000 and requests without a price: 1" in shown.out
    as_json = await run("stats", "--json", *place(twinspan, surface), cwd=tmp_path)
    assert json.loads(as_json.out)["totals"]["output_tokens"] == 3


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_it_shows_them_again_and_again(twinspan: Running, tmp_path: Path, surface: str) -> None:
    arguments = ("stats", "--watch", "--interval", "0.1", *place(twinspan, surface))
    async with started(*arguments, cwd=tmp_path, TWINSPAN_TOKEN=TOKEN) as watching:
        await watching.until("requests to providers: 0")
        await twinspan.chat(HELLO)
        await watching.until("requests to providers: 1")


async def test_a_watch_over_grpc_ends_with_the_gateway(upstream: Upstream, tmp_path: Path) -> None:
    async with (
        running(configuration(upstream.base_url)) as twinspan,
        started("stats", "--watch", *place(twinspan, "grpc"), cwd=tmp_path, TWINSPAN_TOKEN=TOKEN) as watching,
    ):
        await watching.until("under way")
        await twinspan.gateway.core.drain()
        assert await watching.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1 does not answer"),
        (["--grpc", "127.0.0.1:1"], "127.0.0.1:1 does not answer"),
        (["--grpc", "127.0.0.1:1", "--watch"], "127.0.0.1:1 does not answer"),
    ],
)
async def test_a_gateway_that_is_not_there_is_a_problem(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    ended = await run("stats", *arguments, cwd=tmp_path)
    assert ended.code == 1
    assert complaint in ended.err


async def test_an_interval_that_would_do_nothing_but_ask_is_refused(tmp_path: Path) -> None:
    ended = await run("stats", "--watch", "--interval", "0.01", cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "twinspan: --interval must be from 0.1 to 60 seconds.\n")


async def test_to_watch_over_grpc_needs_a_credential(twinspan: Running, tmp_path: Path) -> None:
    ended = await run("stats", "--watch", *place(twinspan, "grpc"), cwd=tmp_path)
    assert (ended.code, "(auth_failed)" in ended.err) == (1, True)


def test_a_report_has_a_table_of_providers_of_models_and_of_what_cools_down() -> None:
    stats: dict[str, Any] = {
        "version": "1.2.3",
        "uptime_seconds": 3725.4,
        "inflight_requests": 2,
        "totals": {"requests": 4, "errors": 1, "input_tokens": 10, "output_tokens": 20},
        "billing": {"cost_usd": 0.5, "cost_usd_by_provider": {"acme": 0.5}, "unpriced_requests": 0},
        "batches": {"active": 1, "pending_requests": 7},
        "process": {"asyncio_tasks": 9, "event_loop_lag_p50_seconds": 0.0001, "event_loop_lag_p99_seconds": 0.002},
        "providers": [
            {
                "provider": "acme",
                "state": "degraded",
                "requests": 4,
                "errors": 1,
                "recent_error_rate": 0.25,
                "latency_p50_seconds": 0.25,
                "last_error": "rate_limited",
                "last_error_seconds_ago": 61,
            }
        ],
        "models": [
            {
                "model": "m",
                "provider": "acme",
                "agent": "smart",
                "requests": 4,
                "errors": 1,
                "input_tokens": 10,
                "output_tokens": 20,
                "latency_p50_seconds": 0.25,
                "latency_p95_seconds": 0.5,
                "latency_p99_seconds": 1,
                "cost_usd": 0.5,
            }
        ],
        "breakers": [
            {
                "model": "m",
                "provider": "acme",
                "agent": "smart",
                "failures": 3,
                "state": "open",
                "remaining_seconds": 9.6,
                "last_error": "rate_limited",
            }
        ],
    }
    assert report(stats).split("\n") == [
        "twinspan 1.2.3, up 1:02:05, requests under way: 2",
        "requests to providers: 4, errors: 1",
        "tokens read: 10, written: 20",
        "cost: $0.500000",
        "tasks: 9, event loop late by 0.1 ms (p99 2.0 ms)",
        "batches under way: 1, requests of theirs to be answered: 7",
        "",
        "PROVIDER  STATE     REQUESTS  ERRORS  OF LATE  P50       COST       LAST ERROR",
        "acme      degraded  4         1       25%      250.0 ms  $0.500000  rate_limited, 0:01:01 ago",
        "",
        "MODEL  PROVIDER  AGENT  REQUESTS  ERRORS  READ  WRITTEN  P50       P95       P99        COST",
        "m      acme      smart  4         1       10    20       250.0 ms  500.0 ms  1000.0 ms  $0.500000",
        "",
        "BREAKER OF  PROVIDER  AGENT  STATE  FAILURES  LEFT  LAST ERROR",
        "m           acme      smart  open   3         10 s  rate_limited",
    ]
