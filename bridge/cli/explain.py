"""`twinspan explain`: what would come of a chat, over either surface; nothing is sent to a provider."""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import httpx
import orjson
from twinspan.v1 import chat_pb2, content_pb2, explain_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge.cli.chat import credential
from bridge.cli.client import grpc_problem, rest_problem
from bridge.cli.problem import Problem
from bridge.transcoding import as_json

_CONNECT_SECONDS = 5.0

Explained = Mapping[str, Any]
"""What POST /v1/explain answers."""


async def run_explain(arguments: argparse.Namespace) -> None:
    """Prints what would come of a chat."""
    token, prompt = credential(arguments), " ".join(arguments.prompt)
    if arguments.grpc:
        explained = await _over_grpc(arguments.grpc, token, arguments.model, prompt)
    else:
        url = arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080"
        explained = await _over_rest(url, token, arguments.model, prompt)
    print(orjson.dumps(explained).decode() if arguments.json else "\n".join(lines(explained)))


def lines(explained: Explained) -> Iterator[str]:
    """Gives the lines of an explanation for people."""
    caller = explained["caller"]
    team = f", of the team {caller['team']}" if caller["team"] else ""
    may = f"; may name {', '.join(caller['allowed_agents'])}" if caller["allowed_agents"] else ""
    yield f"key {caller['key']} ({', '.join(caller['roles'])}{team}){may}"
    if "refusal" in explained:
        yield f"REFUSED: {explained['refusal']['message']} ({explained['refusal']['kind']})"
    if not explained["model"]:
        return
    yield f"{'agent' if explained['is_agent'] else 'model'} {explained['model']}, ordered by {explained['strategy']}"
    yield (
        f"about {explained['input_tokens']} tokens read and {explained['output_tokens']} written,"
        f" ${explained['reserved_usd']:.6f} reserved, {explained['timeout_seconds']:g} s at most"
    )
    for number, one in enumerate(explained["targets"], 1):
        known = [f"score {one['score']:.4g}", f"breaker {one['breaker']}", f"{one['busy']} under way"]
        known += [f"${one['estimated_usd']:.6f}"] if "estimated_usd" in one else ["price unknown"]
        known += [f"begins after {one['latency_seconds'] * 1000:.0f} ms"] if "latency_seconds" in one else []
        yield f"{number:>3}. {one['provider']}/{one['model']}: {', '.join(known)}"
    for one in explained["left_out"]:
        yield f"  -  {one['provider']}/{one['model']}: {one['message']}"
    for one in explained["limits"]:
        yield f"{one['scope']} {one['name']}: {one['left']:g} of {one['limit']:g} left ({one['of']})"


async def _over_rest(url: str, token: str, model: str, prompt: str) -> Explained:
    url = url.rstrip("/").removesuffix("/v1")
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    timeout = httpx.Timeout(30.0, connect=_CONNECT_SECONDS)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as http:
        try:
            response = await http.post(f"{url}/v1/explain", json=body)
        except httpx.TransportError as error:
            raise Problem(
                f"{url} does not answer ({type(error).__name__}). Is the gateway running? Start it: twinspan serve"
            ) from error
    if response.status_code != httpx.codes.OK:
        raise rest_problem(response.status_code, response.content)
    explained: Explained = response.json()
    return explained


async def _over_grpc(target: str, token: str, model: str, prompt: str) -> Explained:
    chat = chat_pb2.ChatRequest(model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text=prompt)])
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            response = await AdminServiceStub(channel).Explain(
                explain_pb2.ExplainRequest(chat=chat), metadata=(("authorization", f"Bearer {token}"),), timeout=30
            )
        except grpc.aio.AioRpcError as error:
            raise grpc_problem(target, error) from error
    return as_json(response)
