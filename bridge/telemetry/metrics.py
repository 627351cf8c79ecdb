"""The bridge's one metric of its own, and the rendering of whatever its registry holds.

The registry is handed in: where bridge and core share a process it holds the core's metrics too, and `/metrics` shows both.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

OTHER_METHOD = "_OTHER"
"""The name of every HTTP method that is none of the well-known ones."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def method_name(method: str) -> str:
    """Returns an HTTP method's name if it is well-known, so that a caller cannot make names up."""
    return method if method in _METHODS else OTHER_METHOD


HttpCounts: TypeAlias = Mapping[tuple[str, str, int], int]
"""Requests that have ended, by method, route and status."""


class Exposition(Protocol):
    """Shows metrics to a scraper."""

    async def rendered(self, accept: str) -> tuple[bytes, str]:
        """Returns all metrics, and their content type; `accept` is the `Accept` header."""


class HttpMetrics(Collector):
    """Counts HTTP requests. Routes are templates and methods well-known, so the number of counts is bounded."""

    def __init__(self, registry: CollectorRegistry, counts: HttpCounts | None = None) -> None:
        """Makes the counts and registers them.

        Args:
            registry: A registry of one's own, never the global one.
            counts: What to begin with; None for nothing.
        """
        self._registry = registry
        self._requests: dict[tuple[str, str, int], int] = dict(counts or {})
        registry.register(self)

    def count(self, method: str, route: str, status: int) -> None:
        """Counts a request that has ended.

        Args:
            method: The HTTP method.
            route: The route's template, such as `/v1/models/{id}`.
            status: The answer's status; 499 if the client went away.
        """
        key = (method_name(method), route, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def counts(self) -> HttpCounts:
        """Returns what was counted."""
        return dict(self._requests)

    async def rendered(self, accept: str) -> tuple[bytes, str]:
        """Returns what `render` does, made in a thread: with hundreds of targets it takes milliseconds."""
        return await asyncio.to_thread(self.render, accept)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Returns all metrics of the registry, and their content type; safe to call in a thread.

        Args:
            accept: The `Accept` header; OpenMetrics, which alone has exemplars, is given to whoever asks for it.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: the registry need not collect to learn the name."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields the metric."""
        family = CounterMetricFamily(
            "twinspan_http_requests", "HTTP requests that have ended.", labels=("method", "route", "status")
        )
        for (method, route, status), count in list(self._requests.items()):
            family.add_metric((method, route, str(status)), count)
        yield family
