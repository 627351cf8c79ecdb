"""A provider that says what a test tells it to, and remembers what it was asked.

It speaks true HTTP by aiohttp. For answers that are no true HTTP there is `tests.gateway.providers.wire`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from aiohttp import web

MODEL = "model-1"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@dataclass
class Request:
    """A request as the provider got it."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    raw: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection of this request is closed while its answer is under way."""


Script: TypeAlias = Callable[[web.BaseRequest, Request], Awaitable[web.StreamResponse]]


class Upstream:
    """A provider on a free port of 127.0.0.1. Without a script it answers as `says("Hello there.")` does."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._scripts: list[Script] = [says("Hello there.")]
        self._arrived = asyncio.Condition()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def plays(self, *scripts: Script) -> None:
        """Sets what the next requests get, one script each; the last one is for all further ones."""
        self._scripts = list(scripts)

    async def arrived(self, count: int = 1) -> None:
        """Waits until so many requests have come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        raw = await http.content.read()  # which has no limit
        request = Request(http.path, dict(http.headers), json.loads(raw) if raw[:1] in {b"{", b"["} else {}, raw)
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            return await script(http, request)
        except (asyncio.CancelledError, ConnectionError):
            request.gone.set()
            raise


def whole(answer: Mapping[str, Any], status: int = 200, **headers: str) -> Script:
    """Answers with a JSON object."""

    async def script(_http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        return web.json_response(answer, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return script


def by_path(scripts: Mapping[str, Script]) -> Script:
    """Answers each path with a script of its own."""

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        return await scripts[request.path](http, request)

    return script


async def _spoken() -> web.StreamResponse:
    return web.Response(body=b"RIFF", content_type="audio/wav")


OTHERS: Mapping[str, Script] = {
    "/v1/embeddings": whole({"object": "list", "model": "embed-1", "data": [{"index": 0, "embedding": [0.5]}], "usage": USAGE}),
    "/v1/moderations": whole({"id": "modr-1", "model": "omni-1", "results": [{"flagged": False, "categories": {}}]}),
    "/v1/completions": whole({"id": "cmpl-1", "choices": [{"index": 0, "text": "Hi.", "finish_reason": "stop"}]}),
    "/v1/responses": whole(
        {"id": "resp-1", "object": "response", "status": "completed", "model": "m", "output": [], "usage": None}
    ),
    "/v1/images/generations": whole({"created": 1, "data": [{"b64_json": "AAAA"}]}),
    "/v1/audio/speech": lambda _http, _request: _spoken(),
    "/v1/audio/transcriptions": whole({"text": "Hi.", "created": 1, "data": []}),
    "/v1/audio/translations": whole({"text": "Hi.", "created": 1, "data": []}),
    "/v1/images/edits": whole({"text": "Hi.", "created": 1, "data": []}),
    "/v1/images/variations": whole({"text": "Hi.", "created": 1, "data": []}),
    "/v1/rerank": whole({"id": "rr-1", "results": [{"index": 0, "relevance_score": 0.5}]}),
}
"""What a provider says where it is asked for something else than a chat, by path."""


def text(body: str, status: int = 200, content_type: str = "text/html", **headers: str) -> Script:
    """Answers with a text."""

    async def script(_http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(text=body, status=status, content_type=content_type, headers=named)

    return script


def streams(*events: Mapping[str, Any] | str | asyncio.Event | ConnectionError) -> Script:
    """Answers with server-sent events, a `data` line each; an `asyncio.Event` is waited for, and an error breaks off there."""

    async def script(http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        for event in events:
            if isinstance(event, asyncio.Event):
                await event.wait()
            elif isinstance(event, ConnectionError):
                assert http.transport is not None
                http.transport.abort()
                await asyncio.Event().wait()  # until the server notices
            else:
                payload = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
                await response.write(f"data: {payload}\n\n".encode())
        return response

    return script


def hangs() -> Script:
    """Never answers."""

    async def script(_http: web.BaseRequest, _request: Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return script


def says(*pieces: str, usage: Mapping[str, Any] = USAGE) -> Script:
    """Answers with a text, whole or streamed in these pieces, as a provider does that is asked for either."""

    async def script(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        body = request.body
        if not body.get("stream"):
            return await whole(completion({"role": "assistant", "content": "".join(pieces)}, usage=usage))(http, request)
        events: list[Mapping[str, Any] | str] = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"content": piece}) for piece in pieces]
        events.append(chunk({}, finish_reason="stop"))
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append(chunk(usage=usage))
        return await streams(*events, "[DONE]")(http, request)

    return script


def completion(
    message: Mapping[str, Any], finish_reason: str = "stop", usage: Mapping[str, Any] = USAGE, **fields: Any
) -> dict[str, Any]:
    """Returns a whole answer of one choice."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": dict(message), "finish_reason": finish_reason, "logprobs": None}],
        "usage": dict(usage),
        **fields,
    }


def chunk(
    delta: Mapping[str, Any] | None = None,
    *,
    index: int = 0,
    finish_reason: str | None = None,
    choices: Sequence[Mapping[str, Any]] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Returns a chunk with one choice; with none if there is no delta."""
    own = [] if delta is None else [{"index": index, "delta": dict(delta), "finish_reason": finish_reason}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": own if choices is None else list(choices),
        **fields,
    }
