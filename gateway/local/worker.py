"""The process in which the embedded model runs: `python -m gateway.local.worker`.

It reads its `Orders` from the first line of standard input, loads the model, writes one line of JSON with its address to
standard output, and serves until its standard input ends. So it cannot outlive the gateway, however that ends.
"""

import json
import os
import sys

import xllamacpp

from gateway.local.orders import Orders

_SHARED_CONTEXT_TOKENS = 4096
_QUIET = 0


def main() -> None:
    """Runs the worker."""
    orders = Orders.of_line(sys.stdin.readline())
    server = xllamacpp.Server(_parameters(orders))
    print(json.dumps({"url": server.listening_address}), flush=True)  # noqa: T201 (the gateway reads it)
    sys.stdin.read()
    os._exit(0)  # the engine would first finish what nobody waits for any more


def _parameters(orders: Orders) -> "xllamacpp.CommonParams":
    parameters = xllamacpp.CommonParams()
    parameters.model.path = orders.weights
    parameters.model_alias = {orders.model}
    parameters.n_parallel = orders.slots
    parameters.kv_unified = True
    parameters.n_ctx = _SHARED_CONTEXT_TOKENS
    parameters.cpuparams.n_threads = orders.threads
    parameters.cpuparams_batch.n_threads = orders.threads
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = orders.port
    parameters.api_keys = [orders.api_key]
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.verbosity = _QUIET
    return parameters


if __name__ == "__main__":
    main()
