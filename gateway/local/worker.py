"""The process in which the embedded model runs: `python -m gateway.local.worker`, started by the engine.

It reads its `Orders` from the first line of standard input, loads the model, writes one line of JSON with its address to
standard output, and serves HTTP until its standard input ends. That happens when the gateway ends, however it ends, so that the
worker never outlives it. It shares nothing with the gateway and imports nothing of it but the orders.
"""

import contextlib
import json
import os
import sys

import xllamacpp

from gateway.local.orders import Orders

_ERRORS_ONLY = 1


def main() -> None:
    """Runs the worker."""
    answers = _claim_stdout()
    orders = Orders.of_line(sys.stdin.readline())
    try:
        server = xllamacpp.Server(parameters(orders))
        os.write(answers, json.dumps({"url": server.listening_address}).encode() + b"\n")
    except (RuntimeError, OSError) as error:
        with contextlib.suppress(OSError):  # nobody may be left to read them
            print(error, file=sys.stderr, flush=True)  # noqa: T201 (its last words, which the engine reports)
        os._exit(1)
    sys.stdin.read()
    os._exit(0)  # the engine would first finish what nobody waits for any more


def _claim_stdout() -> int:
    """Returns a descriptor of standard output that nobody else has.

    Whatever else the process writes there goes to standard error: it must neither be taken for the address, nor fill a pipe that
    nobody reads any more.
    """
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def parameters(orders: Orders) -> xllamacpp.CommonParams:
    """Returns how the model is to be run and served."""
    params = xllamacpp.CommonParams()
    params.model.path = orders.weights
    params.model_alias = {orders.model}
    params.cpuparams.n_threads = orders.threads
    params.cpuparams_batch.n_threads = orders.threads
    # In a context that the slots share, one long answer makes the others fail when it is full. Eight bits instead of sixteen would
    # halve what a context takes, and nearly triple the time for a long prompt.
    params.n_parallel = orders.slots
    params.n_ctx = orders.slots * orders.context_tokens
    params.kv_unified = False
    params.cache_ram_mib = 0  # else prompts that have been answered are kept, up to 8 GiB of them
    params.cache_idle_slots = False  # only of use with the former
    params.fit_params = False  # there is no device to fit it to, and trying doubles the time to load
    params.hostnames = ["127.0.0.1"]
    params.port = orders.port
    params.api_keys = [orders.api_key]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = _ERRORS_ONLY
    return params


if __name__ == "__main__":
    main()
