"""One trace from the client's request to the provider's answer, on both surfaces, whole."""

from typing import Any

from twinspan.v1 import chat_pb2, content_pb2
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, says, whole
from tests.gateway.telemetry.trees import Node

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "A secret thought."}]}


def rpc(method: str, code: str = "OK") -> dict[str, Any]:
    return {"rpc.system.name": "grpc", "rpc.method": f"twinspan.v1.ChatService/{method}", "rpc.response.status_code": code}


def core(upstream: Upstream, *, stream: bool) -> Node:
    """Returns the core's part of the tree of a chat that goes well."""
    method = "Stream" if stream else "Complete"
    attempt = Node(
        "attempt acme",
        "CLIENT",
        {
            "twinspan.provider": "acme",
            "twinspan.model": MODEL,
            "twinspan.attempt": 1,
            "http.request.method": "POST",
            "url.full": f"{upstream.base_url}/chat/completions",
            "server.address": "127.0.0.1",
            "server.port": upstream.port,
            "http.response.status_code": 200,
        },
    )
    chat = Node(
        f"chat {MODEL}",
        "CLIENT",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": MODEL,
            **({"gen_ai.request.stream": True} if stream else {}),
            "gen_ai.provider.name": "acme",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.model": MODEL,
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": 9,
            "gen_ai.usage.output_tokens": 3,
            "twinspan.attempts": 1,
        },
        events=["first_token"],
        children=[attempt],
    )
    return Node(f"twinspan.v1.ChatService/{method}", "SERVER", rpc(method), children=[chat])


def over_http(inner: Node, method: str) -> Node:
    client = Node(f"twinspan.v1.ChatService/{method}", "CLIENT", rpc(method), children=[inner])
    return Node(
        "POST /v1/chat/completions",
        "SERVER",
        {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "url.path": "/v1/chat/completions",
            "url.scheme": "http",
            "user_agent.original": "test",
        },
        children=[client],
    )


def find(tree: Node, name: str) -> Node:
    if tree.name.startswith(name):
        return tree
    return next(found for child in tree.children if (found := _find(child, name)))


def _find(tree: Node, name: str) -> Node | None:
    if tree.name.startswith(name):
        return tree
    return next((found for child in tree.children if (found := _find(child, name))), None)


def without_times(tree: Node) -> Node:
    """Takes out the one attribute that differs from run to run, once it has made sure that it is there."""
    assert find(tree, "chat ").attributes.pop("gen_ai.response.time_to_first_chunk") >= 0
    return tree


async def test_a_stream_over_rest_is_one_tree(twinspan: Running, upstream: Upstream) -> None:
    await twinspan.chat({**HELLO, "stream": True}, **{"User-Agent": "test"})
    (tree,) = await twinspan.spans.trees()
    assert without_times(tree) == over_http(core(upstream, stream=True), "Stream")


async def test_a_whole_answer_over_rest_is_one_tree(twinspan: Running, upstream: Upstream) -> None:
    await twinspan.chat({**HELLO, "stream": False}, **{"User-Agent": "test"})
    (tree,) = await twinspan.spans.trees()
    assert without_times(tree) == over_http(core(upstream, stream=False), "Complete")


async def test_an_rpc_is_the_same_tree_without_its_http_part(twinspan: Running, upstream: Upstream) -> None:
    request = chat_pb2.StreamRequest(
        chat=chat_pb2.ChatRequest(model=MODEL, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
    )
    metadata = (*twinspan.metadata, ("traceparent", TRACEPARENT), ("tracestate", "vendor=1"))
    async for _ in ChatServiceStub(twinspan.network).Stream(request, metadata=metadata):
        pass
    spans = twinspan.spans
    (tree,) = await spans.trees()
    assert without_times(tree) == core(upstream, stream=True)
    sent = upstream.requests[0].headers
    assert sent["traceparent"].split("-")[1] == TRACE
    assert sent["tracestate"] == "vendor=1"


async def test_the_clients_trace_goes_on_through_the_gateway_to_the_provider(twinspan: Running, upstream: Upstream) -> None:
    await twinspan.chat({**HELLO, "stream": True}, traceparent=TRACEPARENT, tracestate="vendor=1")
    await twinspan.spans.trees()
    sent = upstream.requests[0].headers
    assert sent["traceparent"].split("-")[1] == TRACE
    assert sent["traceparent"].split("-")[2] != "00f067aa0ba902b7"
    assert sent["tracestate"] == "vendor=1"


async def test_a_failed_attempt_and_its_retry_are_spans_of_their_own(upstream: Upstream) -> None:
    upstream.plays(whole({"error": {"message": "Slow down."}}, 429, Retry_After="0"), says("At last."))
    agents = {"smart": {"models": [MODEL], "max_retries": 1}}
    async with running(configuration(upstream.base_url, agents=agents)) as twinspan:
        await twinspan.chat({**HELLO, "model": "smart", "stream": True})
        (tree,) = await twinspan.spans.trees()
    first, second = find(tree, "chat smart").children
    assert (first.name, first.status, first.attributes["http.response.status_code"]) == ("attempt acme", "ERROR", 429)
    assert (second.status, second.attributes["twinspan.retry_reason"]) == ("UNSET", "rate_limited")
    assert find(tree, "chat smart").attributes["twinspan.attempts"] == 2


async def test_a_refused_request_is_a_tree_that_names_the_kind_of_error(twinspan: Running) -> None:
    await twinspan.chat({**HELLO, "model": "nobody", "stream": True})
    (tree,) = await twinspan.spans.trees()
    assert tree.attributes["http.response.status_code"] == 404
    server = tree.children[0].children[0]
    # By the semantic conventions a client's mistake is no error of the server's.
    assert (server.status, server.attributes["error.type"]) == ("UNSET", "model_not_found")
    assert server.attributes["rpc.response.status_code"] == "NOT_FOUND"


async def test_no_span_holds_content_or_credentials(twinspan: Running) -> None:
    await twinspan.chat({**HELLO, "stream": True})
    spans = twinspan.spans
    (tree,) = await spans.trees()
    assert "secret" not in repr(tree)
    assert "ts-the" not in repr(tree)
