"""`twinspan demo`: the gateway with its embedded model, one answer over each surface, and the trace of each."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from bridge.cli.chat import stream_answer, summary
from bridge.cli.client import Client, GrpcClient, Outcome, RestClient, Turn
from bridge.cli.serve import gateway
from gateway import app

_PROMPT = "In one short sentence, what is a gateway?"
_MAX_TOKENS = 200
_TRACE_SECONDS = 5.0
_SHOWN_ATTRIBUTES = (
    "http.response.status_code",
    "gen_ai.response.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "twinspan.provider",
)


async def run_demo(_arguments: argparse.Namespace) -> None:
    """Starts a gateway with the embedded model on free ports, asks it once over each surface, and stops it.

    Raises:
        Problem: The embedded model is not installed, or an answer failed.
    """
    traces = _Traces()
    print("Starting the gateway with its embedded model ...", file=sys.stderr, flush=True)
    configuration = app.demo_configuration()
    async with gateway(configuration, processors=[traces]) as running:
        token = running.core.new_token or ""
        model = running.core.model_names()[0]
        clients: Sequence[tuple[str, Client]] = (
            (f"REST, {running.bridge.url}", RestClient(running.bridge.url, token, _MAX_TOKENS)),
            (f"gRPC, {running.core.grpc_url}", GrpcClient(running.core.grpc_url, token, _MAX_TOKENS)),
        )
        for surface, client in clients:
            print(f"\n=== {surface}, model {model}\n> {_PROMPT}")
            outcome = Outcome()
            try:
                await stream_answer(client, model, [Turn("user", _PROMPT)], outcome)
            finally:
                await client.close()
            print(summary(outcome))
            print(tree(await traces.next()))


class _Traces(SpanProcessor):
    """Collects spans into whole traces."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []
        self._whole: asyncio.Queue[list[ReadableSpan]] = asyncio.Queue()

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.append(span)
        if span.parent is None:  # the outermost one, which ends last
            self._whole.put_nowait(self._ended)
            self._ended = []

    async def next(self) -> list[ReadableSpan]:
        """Returns the next trace once it is whole, which is a moment after its client has the answer."""
        async with asyncio.timeout(_TRACE_SECONDS):
            return await self._whole.get()


def tree(spans: Sequence[ReadableSpan]) -> str:
    """Returns the spans of one trace as an indented list: name, duration, and what tells most."""
    known = {span.context.span_id for span in spans if span.context}
    lines: list[str] = []

    def add(parent: int | None, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.start_time or 0):
            above = span.parent.span_id if span.parent and span.parent.span_id in known else None
            if above == parent and span.context is not None:
                lines.append(f"  {'   ' * depth}{_line(span)}")
                add(span.context.span_id, depth + 1)

    add(None, 0)
    trace_id = f"{spans[0].context.trace_id:032x}" if spans and spans[0].context else ""
    return "\n".join((f"trace {trace_id}", *lines))


def _line(span: ReadableSpan) -> str:
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    attributes = span.attributes or {}
    facts = " ".join(f"{name.rpartition('.')[2]}={attributes[name]!s}" for name in _SHOWN_ATTRIBUTES if name in attributes)
    return f"{span.name}  ({span.kind.name.lower()})  {milliseconds:.1f} ms  {facts}".rstrip()
