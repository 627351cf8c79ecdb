"""Counts and times of one phase, as the load generators of both protocols keep them."""

import asyncio
import collections
import time

from bench import proc
from bench.phase import Outcome, Phase, spread

_MEMORY_INTERVAL_SECONDS = 0.1


class Tally:
    """What happened; counted between `start` and `stop`, and failures always."""

    def __init__(self, phase: Phase) -> None:
        """Makes a tally of nothing."""
        self._phase = phase
        self._recording = False
        self._responses = 0
        self._chunks = 0
        self._messages = 0
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._failures: collections.Counter[str] = collections.Counter()
        self._rss_before = self._rss_peak = self._pss_peak = 0
        self._open = self._most_open = 0

    def start(self) -> None:
        """Begins to count, now that the load is steady."""
        self._cpu = self._cpu_seconds()
        self._busy = proc.busy_seconds()
        self._started = time.perf_counter()
        self._recording = True

    def stop(self) -> None:
        """Counts no more."""
        self._recording = False
        self._seconds = time.perf_counter() - self._started
        busy = proc.busy_seconds() - self._busy
        now = self._cpu_seconds()
        self._cpu = {name: now[name] - before for name, before in self._cpu.items()}
        self._foreign = max(0.0, busy - sum(self._cpu.values()))
        self._see_memory()

    def opened(self) -> None:
        """Counts a stream of a crowd that arrived."""
        self._open += 1
        self._most_open = max(self._most_open, self._open)

    def closed(self) -> None:
        """Counts a stream of a crowd that left."""
        self._open -= 1

    def success(self, latency: float, first: float, *, messages: int = 0) -> None:
        """Counts an answer that is complete and right; times are in seconds since the request."""
        if self._recording:
            self._responses += 1
            self._chunks += self._phase.chunks
            self._messages += messages
            self._latencies.append(latency)
            self._firsts.append(first)

    def failure(self, what: str) -> None:
        """Counts a request that failed."""
        self._failures[what] += 1

    @property
    def failed(self) -> int:
        """Requests that failed so far."""
        return self._failures.total()

    async def watch_memory(self) -> None:
        """Looks at the gateway's memory from time to time, until it is cancelled."""
        if self._phase.gateway_pid is None:
            return
        self._rss_before = proc.memory(self._phase.gateway_pid).rss
        while True:
            self._see_memory()
            await asyncio.sleep(_MEMORY_INTERVAL_SECONDS)

    def outcome(self) -> Outcome:
        """Returns what was counted."""
        return Outcome(
            seconds=self._seconds,
            responses=self._responses,
            chunks=self._chunks,
            messages=self._messages,
            failures=dict(self._failures),
            latency=spread(self._latencies),
            first=spread(self._firsts),
            cpu_seconds=self._cpu,
            foreign_seconds=self._foreign,
            rss_before=self._rss_before,
            rss_peak=self._rss_peak,
            pss_peak=self._pss_peak,
            most_open=self._most_open,
        )

    def _see_memory(self) -> None:
        if self._phase.gateway_pid is None:
            return
        now = proc.memory(self._phase.gateway_pid)
        self._rss_peak = max(self._rss_peak, now.rss)
        self._pss_peak = max(self._pss_peak, now.pss)

    def _cpu_seconds(self) -> dict[str, float]:
        pids = dict(self._phase.other_pids)
        if self._phase.gateway_pid is not None:
            pids["gateway"] = self._phase.gateway_pid
        return {"load": time.process_time()} | {name: proc.cpu_seconds(pid) for name, pid in pids.items()}
