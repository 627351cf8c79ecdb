"""A whole gateway in the test's own event loop, as `twinspan serve` runs it, and the ways to reach it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from openai import AsyncOpenAI
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind

from bridge.cli.serve import Gateway, gateway
from gateway.app import Configuration
from gateway.config.schema import Config
from tests.flows.upstream import MODEL, Upstream
from tests.flows.wire import Wire
from tests.gateway.telemetry.trees import Node, trees

TOKEN = "ts-the-administrator-of-the-tests"


class Spans(SpanProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []
        self._changed = asyncio.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)
        self._changed.set()

    async def trees(self, count: int = 1) -> list[Node]:
        """Waits until so many traces are whole, returns them as trees, and forgets them.

        A root ends a moment after its client has its answer.
        """
        async with asyncio.timeout(5):
            while sum(1 for span in self.ended if span.parent is None or span.parent.is_remote) < count:
                self._changed.clear()
                await self._changed.wait()
        ended, self.ended = self.ended, []
        return trees(ended)


class Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def kept_log() -> Iterator[Log]:
    """Keeps the process's log, and puts its handlers back afterwards, which a gateway replaces."""
    root = logging.getLogger()
    handlers, level, log = list(root.handlers), root.level, Log()
    try:
        yield log
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@dataclass
class Running:
    """A gateway that runs, and clients of it."""

    gateway: Gateway
    rest: httpx.AsyncClient
    network: grpc.aio.Channel
    spans: Spans
    log: "Log"

    def complaints(self) -> list[str]:
        """Returns what was logged at the level of a warning or above: nothing, as long as only others are at fault."""
        return [record.getMessage() for record in self.log.records if record.levelno >= logging.WARNING]

    @property
    def url(self) -> str:
        return self.gateway.bridge.url

    @property
    def target(self) -> str:
        return self.gateway.core.grpc_url

    @property
    def inprocess(self) -> grpc.aio.Channel:
        return self.gateway.core.channel

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {TOKEN}"),)

    def openai(self, token: str = TOKEN, **options: Any) -> AsyncOpenAI:
        """Returns the official SDK, pointed at the gateway."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0, timeout=5, **options)

    async def chat(self, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Posts a chat and returns the whole answer."""
        return await self.rest.post("/v1/chat/completions", json=dict(body), headers=headers)


def spans_of(twinspan: Running) -> list[list[str]]:
    """Returns the name and status of each of the core's own spans, in the order in which they ended, and forgets them."""
    ended, twinspan.spans.ended = twinspan.spans.ended, []
    own = (span for span in ended if span.kind is SpanKind.SERVER and span.name.startswith("twinspan."))
    return [[span.name, span.status.status_code.name] for span in own]


def configuration(base_url: str, **sections: Any) -> dict[str, Any]:
    """Returns a configuration with one provider, `acme`, whose model is `model-1`; sections given replace those here."""
    return {
        "server": {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning", "drain_seconds": 1},
        "client_token": TOKEN,
        "providers": {"acme": {"base_url": base_url, "api_key": "upstream-secret-key", "models": [MODEL]}},
        **sections,
    }


@asynccontextmanager
async def running(sections: Mapping[str, Any]) -> AsyncIterator[Running]:
    """Runs a gateway for as long as the context lasts."""
    spans = Spans()
    configured = Configuration.of(Config.model_validate(dict(sections)))
    with kept_log() as log:
        async with _started(configured, spans, log) as started:
            yield started


@asynccontextmanager
async def running_from(path: Path) -> AsyncIterator[Running]:
    """Runs a gateway on a file, which it reads again when it is reloaded."""
    with kept_log() as log:
        async with _started(Configuration.of_files(str(path), {}), Spans(), log) as started:
            yield started


@asynccontextmanager
async def _started(configured: Configuration, spans: Spans, log: Log) -> AsyncIterator[Running]:
    async with (
        gateway(configured, processors=[spans]) as started,
        httpx.AsyncClient(base_url=started.bridge.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5) as rest,
        grpc.aio.insecure_channel(started.core.grpc_url) as network,
    ):
        logging.getLogger().addHandler(log)
        yield Running(started, rest, network, spans, log)


@asynccontextmanager
async def running_over(upstream: Upstream | Wire, **sections: Any) -> AsyncIterator[Running]:
    """Runs a gateway over one provider."""
    async with running(configuration(upstream.base_url, **sections)) as started:
        yield started
