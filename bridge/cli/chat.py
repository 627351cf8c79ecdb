"""`twinspan chat` and `twinspan models`: a gateway from a terminal."""

import argparse
import asyncio
import os
import sys
from contextlib import aclosing

from twinspan.v1 import models_pb2

from bridge.cli.client import Client, GrpcClient, Outcome, RestClient, Turn
from bridge.cli.models import table
from bridge.cli.problem import Problem


def connect(arguments: argparse.Namespace, max_tokens: int | None = None) -> Client:
    """Returns a client for the gateway that the arguments name, which cuts answers off at `max_tokens`.

    Raises:
        Problem: There is no credential.
    """
    token = credential(arguments)
    if arguments.grpc:
        return GrpcClient(arguments.grpc, token, max_tokens)
    return RestClient(arguments.url or os.environ.get("TWINSPAN_URL") or "http://127.0.0.1:8080", token, max_tokens)


def credential(arguments: argparse.Namespace) -> str:
    """Returns the credential that the arguments or the environment give.

    Raises:
        Problem: There is none.
    """
    token: str | None = arguments.token or os.environ.get("TWINSPAN_TOKEN")
    if not token:
        raise Problem("No credential. Give one with --token or in TWINSPAN_TOKEN; `twinspan serve` shows it at its start.", 2)
    return token


async def run_models(arguments: argparse.Namespace) -> None:
    """Prints what may be asked for, one a line: the names alone with `--quiet`, else with what is known of each."""
    client = connect(arguments)
    try:
        models = await client.models()
    finally:
        await client.close()
    for line in [model.id for model in models] if arguments.quiet else table(models):
        print(line)


async def run_chat(arguments: argparse.Namespace) -> None:
    """Answers one prompt, or holds a conversation until the input ends."""
    client = connect(arguments, arguments.max_tokens)
    try:
        model = arguments.model or await _first_model(client)
        prompt = " ".join(arguments.prompt)
        if prompt:
            await answer(client, model, [Turn("user", prompt)], verbose=not arguments.quiet)
            return
        await _converse(client, model, verbose=not arguments.quiet)
    finally:
        await client.close()


async def answer(client: Client, model: str, turns: list[Turn], *, verbose: bool) -> str:
    """Prints an answer as it comes and returns it; with `verbose`, a line on standard error says what it took."""
    outcome = Outcome()
    text = await stream_answer(client, model, turns, outcome)
    if verbose:
        print(summary(outcome), file=sys.stderr)
    return text


async def stream_answer(client: Client, model: str, turns: list[Turn], outcome: Outcome) -> str:
    """Prints an answer as it comes, and returns it."""
    pieces: list[str] = []
    async with aclosing(client.chat(model, turns, outcome)) as texts:
        async for text in texts:
            pieces.append(text)
            print(text, end="", flush=True)
    print()
    return "".join(pieces)


def summary(outcome: Outcome) -> str:
    """Returns one line that says what an answer took."""
    cost = "unknown" if outcome.cost_usd is None else f"${outcome.cost_usd:.6f}"
    return (
        f"[{outcome.provider}/{outcome.model}, first token after {outcome.first_token_seconds * 1000:.0f} ms, "
        f"{outcome.input_tokens} tokens in, {outcome.output_tokens} out, cost {cost}]"
    )


async def _converse(client: Client, model: str, *, verbose: bool) -> None:
    print(f"Talking to {model}. End with Ctrl-D.", file=sys.stderr)
    turns: list[Turn] = []
    while True:
        try:
            prompt = (await asyncio.to_thread(input, "> ")).strip()
        except EOFError:
            print(file=sys.stderr)
            return
        if prompt:
            turns.append(Turn("user", prompt))
            turns.append(Turn("assistant", await answer(client, model, turns, verbose=verbose)))


async def _first_model(client: Client) -> str:
    models = await client.models()
    if not models:
        raise Problem("The gateway offers no model to this credential.")
    for model in models:
        if model.source != models_pb2.MODEL_SOURCE_REGISTRY:
            return model.id
    raise Problem("The gateway is not sure which models there are. Name one with --model: `twinspan models` lists them.")
